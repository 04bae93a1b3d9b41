"""All of Orbax, in one file: save in the background, restore onto a lane's shardings."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

from orbax.checkpoint.experimental import v1 as ocp

from harness.config.schema import CheckpointConfig
from harness.records.layout import RunDir
from harness.records.manifest import Manifest, manifest_steps, remove, write_manifest

NAME = "state"


def restore(run: RunDir, step: int, abstract: Any) -> Any:
    """The state saved at a step, laid out as `abstract` (ShapeDtypeStructs with shardings) says.

    Never call it under another lane's mesh context.
    """
    return ocp.load_checkpointables(str(run.checkpoint(step)), {NAME: abstract})[NAME]


class Saver:
    """Writes a run's checkpoints one after the other; a manifest completes each.

    `save` takes a state that nobody will donate (a copy) and returns as soon as Orbax has taken
    it over; the rest happens in one thread. An error there is raised by the next call.
    """

    def __init__(self, run: RunDir, policy: CheckpointConfig, protected: frozenset[int] = frozenset()):
        self._run, self._policy, self._protected = run, policy, protected
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name=f"save {run.path}", daemon=True)
        self._thread.start()

    def save(self, state: Any, manifest: Manifest) -> None:
        self._raise()
        remove(self._run, manifest.step)
        pending = ocp.save_checkpointables_async(
            str(self._run.checkpoint(manifest.step)), {NAME: state}, overwrite=True
        )

        def complete() -> None:
            pending.result()
            write_manifest(self._run, manifest)
            self._retain()

        self._queue.put(complete)

    def wait(self) -> None:
        """Until everything handed over is on disk."""
        self._queue.join()
        self._raise()

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (task := self._queue.get()) is not None:
            try:
                if self._error is None:
                    task()
            except BaseException as error:
                self._error = error
            finally:
                self._queue.task_done()
        self._queue.task_done()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _retain(self) -> None:
        """Keep the last n, every k-th, and those that a branch starts from."""
        steps = manifest_steps(self._run)
        for step in steps[: -self._policy.keep_last]:
            regular = self._policy.keep_every and step % self._policy.keep_every == 0
            if step not in self._protected and not regular:
                remove(self._run, step)
