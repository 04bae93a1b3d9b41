"""Checkpoints through Orbax: saved in the background, restored onto the shardings of a run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from harness.config.schema.run import CheckpointConfig
from harness.core.atomic_files import CorruptFile
from harness.core.errors import UserError
from harness.core.progress.report import opaque
from harness.parallel.processes.agreement import is_primary
from harness.records.paths import RunDir
from harness.records.run import checkpoint_manifest
from harness.records.run.checkpoint_manifest import Manifest
from harness.training.output.checkpoint_template import TEMPORARY, CheckpointTemplate, read_template
from harness.training.output.orbax_path import orbax_path
from harness.training.output.state_copy import copy_state
from harness.training.output.stored_arrays import (
    STATE_NAME,
    Headers,
    array_name,
    read_arrays,
    read_headers,
)
from harness.training.output.template_cache import check_first, load_template, store_template

if TYPE_CHECKING:
    from harness.training.output.orbax_state import Saving

PROOF_BYTES = 2**26
"""Maximum bytes of the array that is restored to prove a checkpoint, because it lies beside the state and its
copy. The smallest array is taken if all are larger."""
TRANSFER_BYTES = 2**30
"""Bytes of a state that are on the way to the disk at once where it is saved without a copy, unless one array
is larger."""
MAX_REASON = 200
"""Maximum letters of an error of Orbax, which prints whole states, in a message."""


class RestoreError(UserError):
    """A checkpoint that these libraries cannot restore, although its files may be what was written."""


def restore(run: RunDir, step: int, abstract: Any, resize: bool = False) -> Any:
    """Restore the state saved at a step, laid out as `abstract` (ShapeDtypeStructs with shardings).
    Never call it under the mesh context of another run. Raises RestoreError; errors of disk, of memory.

    With `resize`, arrays that were saved larger are cut and smaller ones filled with zeros, at their ends.
    """
    path = run.checkpoint(step)
    try:
        return _ORBAX.submit(_load, orbax_path(path), abstract, resize).result()
    except RestoreError:
        raise
    except Exception as error:
        if _is_of_machine(error):
            raise
        way_out = "Use the versions of Orbax and JAX that are in its run.json, or train the run again."
        raise RestoreError(
            f"{path}: the checkpoint cannot be restored ({_reason(error)}). {way_out}"
        ) from error


def _load(path: Path, abstract: Any, resize: bool = False) -> Any:
    headers = read_headers(path / STATE_NAME)
    _check_dtypes(path, headers, abstract)
    state = None if resize else read_arrays(path / STATE_NAME, headers, abstract)
    if state is not None:
        return state
    from harness.training.output import orbax_state

    return orbax_state.load_state(path, abstract, resize)


def _check_dtypes(path: Path, headers: Headers, abstract: Any) -> None:
    """Raise RestoreError for a checkpoint in other dtypes than `abstract`: Orbax would round without a word.
    Whether an optimizer's state counts roundings is no difference of its arrays."""
    stored_dtypes = {_without_inner(name): header["data_type"] for name, header in headers.items()}
    for keys, spec in jax.tree_util.tree_leaves_with_path(abstract):
        dtype = stored_dtypes.get(_without_inner(array_name(keys)))
        if spec is not ... and dtype not in (None, str(spec.dtype)):
            key = jax.tree_util.keystr(keys, simple=True, separator="/").replace("/inner/", "/", 1)
            raise RestoreError(
                f"{path}: the checkpoint has {key} in {dtype}, and this run keeps it in {spec.dtype}. "
                "Set compute.parameter_dtype and optimizer.moment_dtype as in the run that saved it, or "
                "start from its weights (finetune.method=full), which are then rounded."
            )


def _without_inner(name: str) -> str:
    return name.replace(".inner.", ".", 1)


def _prove(path: Path, state: Any) -> None:
    """Raise CorruptFile unless the checkpoint of `state` can be restored: shapes and dtypes of all, and
    one array bit by bit. Checksums prove what is on disk, not that it is a checkpoint."""
    leaves, tree = jax.tree.flatten(state)
    sizes = [leaf.nbytes if leaf.nbytes <= PROOF_BYTES else -leaf.nbytes for leaf in leaves]
    proof = sizes.index(max(sizes))
    abstract: list[Any] = [...] * len(leaves)  # Orbax leaves these out
    abstract[proof] = jax.ShapeDtypeStruct(
        leaves[proof].shape, leaves[proof].dtype, sharding=leaves[proof].sharding
    )
    try:
        headers = read_headers(path / STATE_NAME)
        array = jax.tree.leaves(_load(path, tree.unflatten(abstract)))[proof]
    except Exception as error:
        if _is_of_machine(error):
            raise
        raise CorruptFile(
            f"the checkpoint that was just saved cannot be restored ({_reason(error)})"
        ) from error
    stored_types = {name: (tuple(header["shape"]), header["data_type"]) for name, header in headers.items()}
    if stored_types != _array_types(state) or _local_bytes(array) != _local_bytes(leaves[proof]):
        raise CorruptFile(f"{path}: the checkpoint that was just saved restores to another state")


def _array_types(state: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return shape and dtype of each array by its name in a checkpoint."""
    arrays = jax.tree_util.tree_leaves_with_path(state)
    return {array_name(path): (tuple(array.shape), str(array.dtype)) for path, array in arrays}


def _local_bytes(array: jax.Array) -> list[bytes]:
    return [np.asarray(shard.data).tobytes() for shard in array.addressable_shards]


def _is_of_machine(error: BaseException) -> bool:
    """Return whether an error comes from memory or disk: the same checkpoint may be restored later."""
    causes = [*_causes(error)]
    if any(isinstance(cause, FileNotFoundError) for cause in causes):
        return False
    return any(isinstance(e, MemoryError | OSError) or "RESOURCE_EXHAUSTED" in str(e) for e in causes)


def _reason(error: BaseException) -> str:
    """Return the beginning of an error's first cause, which says more than what Orbax makes of it."""
    *_, first = _causes(error)
    text = " ".join(str(first).split())
    return f"{type(first).__name__}: {text[:MAX_REASON]}{'...' if len(text) > MAX_REASON else ''}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, its cause, the cause of that, and so on."""
    while error is not None:
        yield error
        error = error.__cause__


_ORBAX = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
"""Only thread that calls Orbax, which numbers its operations per process: a save beside another save or
restore waits for the wrong directory and writes before its own exists (7 of 88 saves failed so)."""


def wait_all() -> None:
    """Wait for every save submitted so far, including those of a failed attempt."""
    _ORBAX.submit(lambda: None).result()


class Checkpointer:
    """Writer of a run's checkpoints; a manifest completes each checkpoint.

    With `in_background`, `save` copies the state, which the next step may overwrite, and returns at once
    unless the last save of the run is unfinished, so at most one copy per run exists. The next call raises
    the errors of the last one. Without, it fetches the state itself from the devices array by array, and
    returns when it is on disk: for devices that have no room for a copy.

    The first save is restored before its manifest is written: in another process libraries, folder or disk
    may have changed, in the same one they have not. Where a template can be made of it, the later saves of
    a small state, and all saves of its like in later processes, are written after it, without Orbax, from
    values that `save` copies to the host. The first of a process is then read again and compared."""

    def __init__(
        self,
        run: RunDir,
        policy: CheckpointConfig,
        protected: frozenset[int] = frozenset(),
        in_background: bool = True,
    ):
        self._run, self._policy, self._protected = run, policy, protected
        self.in_background = in_background
        self._pending: Future[None] | None = None
        self._proven = False
        self._template: CheckpointTemplate | None = None
        orbax_path(run.checkpoint(0))  # raises before the first step, if at all

    def save(self, state: Any, manifest: Manifest) -> None:
        """Wait for the last save, then save `state`, in the background or not."""
        self.wait()
        if not self._proven:
            self._template = load_template(state)
        values = self._template.copy_values(state) if self._template else None
        if values is None:
            self._save_by_orbax(copy_state(state) if self.in_background else state, manifest)
        else:
            self._pending = _ORBAX.submit(self._save_values, values, manifest)
        if not self.in_background:
            self.wait()

    def _save_by_orbax(self, state: Any, manifest: Manifest) -> None:
        if jax.process_count() == 1:
            self._pending = _ORBAX.submit(
                lambda: self._finish_save(self._start_save(state, manifest), state, manifest)
            )
        else:
            # Orbax first compares folders in a collective. No training step may be dispatched beside it: the
            # order of step and collective could differ between processes.
            response = _ORBAX.submit(self._start_save, state, manifest).result()
            self._pending = _ORBAX.submit(self._finish_save, response, state, manifest)

    def wait(self) -> None:
        """Block until the last save is on disk. Raises its error."""
        pending, self._pending = self._pending, None
        if pending is not None:
            with opaque("waits for the end of a save"):
                pending.result()

    def _start_save(self, state: Any, manifest: Manifest) -> Saving:
        from harness.training.output import orbax_state

        if jax.process_index() == 0:  # this process creates the folder for Orbax
            self._clear(manifest.step)
        folder = orbax_path(self._run.checkpoint(manifest.step))
        return orbax_state.start_save(folder, state, None if self.in_background else TRANSFER_BYTES)

    def _clear(self, step: int) -> None:
        """Remove what earlier saves of a step left, and create the folder of all checkpoints."""
        folder = self._run.checkpoint(step)
        checkpoint_manifest.remove_checkpoint(self._run, step)
        for leftover in folder.parent.glob(f"{folder.name}{TEMPORARY}*"):
            shutil.rmtree(leftover)  # left by a save that was killed
        folder.parent.mkdir(parents=True, exist_ok=True)

    def _finish_save(self, response: Saving, state: Any, manifest: Manifest) -> None:
        response.result()
        if not self._proven:
            folder = orbax_path(self._run.checkpoint(manifest.step))
            _prove(folder, state)
            self._proven = True
            self._template = read_template(folder, state)
            if self._template:
                store_template(self._template)
        if is_primary():
            self._complete(manifest)

    def _save_values(self, values: list[bytes], manifest: Manifest) -> None:
        assert self._template, "the values are for it"
        self._clear(manifest.step)
        folder = orbax_path(self._run.checkpoint(manifest.step))
        self._template.write(folder, values)
        if not self._proven:
            check_first(self._template, folder, values)
            self._proven = True
        self._complete(manifest)

    def _complete(self, manifest: Manifest) -> None:
        checkpoint_manifest.write_manifest(self._run, manifest)
        self._delete_old()

    def _delete_old(self) -> None:
        """Keep the last n checkpoints, every k-th, and those that a branch starts from."""
        steps = checkpoint_manifest.manifest_steps(self._run)
        for step in steps[: -self._policy.keep_last]:
            regular = self._policy.keep_every and step % self._policy.keep_every == 0
            if step not in self._protected and not regular:
                checkpoint_manifest.remove_checkpoint(self._run, step)
