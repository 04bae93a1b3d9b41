"""All of Orbax, in one file: save in the background, restore onto a lane's shardings."""

from __future__ import annotations

import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
from orbax.checkpoint.experimental import v1 as ocp

from harness.config.schema.run import CheckpointConfig
from harness.parallel.processes.agreement import is_primary
from harness.records.paths import RunDir
from harness.records.run.checkpoint_manifest import (
    Manifest,
    manifest_steps,
    remove_checkpoint,
    write_manifest,
)

STATE_NAME = "state"


def restore(run: RunDir, step: int, abstract: Any) -> Any:
    """The state saved at a step, laid out as `abstract` (ShapeDtypeStructs with shardings) says.

    Never call it under another lane's mesh context.
    """
    path = run.checkpoint(step).absolute()  # Orbax refuses a relative one
    return _ORBAX.submit(_load, str(path), abstract).result()


def _load(path: str, abstract: Any) -> Any:
    with _orbax_context():
        return ocp.load_checkpointables(path, {STATE_NAME: abstract})[STATE_NAME]


def _orbax_context() -> ocp.Context:
    """Trained weights are noise to a compressor: it saves a twelfth of the bytes, for four times the CPU time
    of a save and half as much again of a restore.

    Where there are several processes, to name them makes Orbax wait for them through JAX's coordinator
    throughout, and not in collectives.
    """
    context = ocp.Context()
    context.array.saving.use_compression = False
    if jax.process_count() > 1:
        context.multiprocessing.primary_host = 0
        context.multiprocessing.active_processes = set(range(jax.process_count()))
    return context


_ORBAX = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
"""One thread for all lanes of a process. Orbax numbers its operations for the whole process: a save during
which another thread saves or restores waits for the wrong directory, and writes before its own is there
(7 of 88 saves failed beside a thread that restored)."""


def wait_all() -> None:
    """Wait for every save that was handed over by now: what a failed attempt left under way."""
    _ORBAX.submit(lambda: None).result()


class Checkpointer:
    """Writes a run's checkpoints in the background; a manifest completes each.

    `save` takes a state that nobody will donate (a copy) and returns at once, unless the run's
    last save is still under way: at most one copy a lane is held. An error is raised by the next call.
    """

    def __init__(self, run: RunDir, policy: CheckpointConfig, protected: frozenset[int] = frozenset()):
        self._run, self._policy, self._protected = run, policy, protected
        self._pending: Future[None] | None = None

    def save(self, state: Any, manifest: Manifest) -> None:
        self.wait()
        if jax.process_count() == 1:
            self._pending = _ORBAX.submit(
                lambda: self._finish_save(self._start_save(state, manifest), manifest)
            )
        else:
            # Orbax begins by comparing folders in a collective. None of the lane's steps may be dispatched
            # beside it: one process would have it before the step, and another one after.
            response = _ORBAX.submit(self._start_save, state, manifest).result()
            self._pending = _ORBAX.submit(self._finish_save, response, manifest)

    def wait(self) -> None:
        """Until what was handed over is on disk."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _start_save(self, state: Any, manifest: Manifest) -> ocp.AsyncResponse[None]:
        folder = self._run.checkpoint(manifest.step)
        if jax.process_index() == 0:  # whoever makes the folder for Orbax
            remove_checkpoint(self._run, manifest.step)
            for leftover in folder.parent.glob(f"{folder.name}.orbax-checkpoint-tmp*"):
                shutil.rmtree(leftover)  # of a save that a kill cut short
        with _orbax_context():
            return ocp.save_checkpointables_async(str(folder), {STATE_NAME: state})

    def _finish_save(self, response: ocp.AsyncResponse[None], manifest: Manifest) -> None:
        response.result()
        if is_primary():
            write_manifest(self._run, manifest)
            self._delete_old()

    def _delete_old(self) -> None:
        """Keep the last n, every k-th, and those that a branch starts from."""
        steps = manifest_steps(self._run)
        for step in steps[: -self._policy.keep_last]:
            regular = self._policy.keep_every and step % self._policy.keep_every == 0
            if step not in self._protected and not regular:
                remove_checkpoint(self._run, step)
