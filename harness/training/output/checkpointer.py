"""Checkpoints through Orbax: saved in the background, restored onto the shardings of a run."""

from __future__ import annotations

import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
from orbax.checkpoint.experimental import v1 as ocp

from harness.config.schema.run import CheckpointConfig
from harness.parallel.processes.agreement import is_primary
from harness.records.paths import RunDir
from harness.records.run import checkpoint_manifest
from harness.records.run.checkpoint_manifest import Manifest

STATE_NAME = "state"


def restore(run: RunDir, step: int, abstract: Any) -> Any:
    """Restore the state saved at a step, laid out as `abstract` (ShapeDtypeStructs with shardings).
    Never call it under the mesh context of another run."""
    path = run.checkpoint(step).absolute()  # Orbax refuses relative paths
    return _ORBAX.submit(_load, str(path), abstract).result()


def _load(path: str, abstract: Any) -> Any:
    with _orbax_context():
        return ocp.load_checkpointables(path, {STATE_NAME: abstract})[STATE_NAME]


def _orbax_context() -> ocp.Context:
    """Build the Orbax context: no compression, and every process named.

    Compressing weights saves a twelfth of the bytes, for four times the CPU time of a save and one and a half
    times that of a restore. With named processes Orbax waits through JAX's coordinator, not in collectives.
    """
    context = ocp.Context()
    context.array.saving.use_compression = False
    if jax.process_count() > 1:
        context.multiprocessing.primary_host = 0
        context.multiprocessing.active_processes = set(range(jax.process_count()))
    return context


_ORBAX = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
"""Only thread that calls Orbax, which numbers its operations per process: a save beside another save or
restore waits for the wrong directory and writes before its own exists (7 of 88 saves failed so)."""


def wait_all() -> None:
    """Wait for every save submitted so far, including those of a failed attempt."""
    _ORBAX.submit(lambda: None).result()


class Checkpointer:
    """Background writer of a run's checkpoints; a manifest completes each checkpoint. `save` takes a state
    that is never donated (a copy). It returns at once unless the last save of the run is unfinished, so at
    most one copy per run exists. The next call raises the errors of the last one."""

    def __init__(self, run: RunDir, policy: CheckpointConfig, protected: frozenset[int] = frozenset()):
        self._run, self._policy, self._protected = run, policy, protected
        self._pending: Future[None] | None = None

    def save(self, state: Any, manifest: Manifest) -> None:
        """Wait for the last save, then save `state` in the background."""
        self.wait()
        if jax.process_count() == 1:
            self._pending = _ORBAX.submit(
                lambda: self._finish_save(self._start_save(state, manifest), manifest)
            )
        else:
            # Orbax first compares folders in a collective. No training step may be dispatched beside it: the
            # order of step and collective could differ between processes.
            response = _ORBAX.submit(self._start_save, state, manifest).result()
            self._pending = _ORBAX.submit(self._finish_save, response, manifest)

    def wait(self) -> None:
        """Block until the last save is on disk. Raises its error."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _start_save(self, state: Any, manifest: Manifest) -> ocp.AsyncResponse[None]:
        folder = self._run.checkpoint(manifest.step)
        if jax.process_index() == 0:  # this process creates the folder for Orbax
            checkpoint_manifest.remove_checkpoint(self._run, manifest.step)
            for leftover in folder.parent.glob(f"{folder.name}.orbax-checkpoint-tmp*"):
                shutil.rmtree(leftover)  # left by a save that was killed
        with _orbax_context():
            return ocp.save_checkpointables_async(str(folder), {STATE_NAME: state})

    def _finish_save(self, response: ocp.AsyncResponse[None], manifest: Manifest) -> None:
        response.result()
        if is_primary():
            checkpoint_manifest.write_manifest(self._run, manifest)
            self._delete_old()

    def _delete_old(self) -> None:
        """Keep the last n checkpoints, every k-th, and those that a branch starts from."""
        steps = checkpoint_manifest.manifest_steps(self._run)
        for step in steps[: -self._policy.keep_last]:
            regular = self._policy.keep_every and step % self._policy.keep_every == 0
            if step not in self._protected and not regular:
                checkpoint_manifest.remove_checkpoint(self._run, step)
