"""The protocol of an engine, which starts, watches and stops workers for the launcher."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from harness.core.atomic_files import UMASK_VARIABLE, umask
from harness.core.errors import UserError
from harness.records.run.run_lock import ALREADY_RUNNING
from harness.records.run.status import ProcessInfo

__all__ = ["ALREADY_RUNNING", "Engine", "Exit", "WorkerSpec", "remote_environment", "run_args"]

FORWARDED_VARIABLES = ("PYTHONPATH", "AB_HARNESS_CACHE")
"""Environment variables that the driver passes to remote workers."""


@dataclass(frozen=True)
class WorkerSpec:
    """A worker to start: it calls `harness.worker.main(runs, env)` and writes its output to `log`."""

    name: str
    runs: tuple[Path, ...]
    env: Mapping[str, str]
    log: Path
    cores: tuple[int, ...] = ()
    """CPU cores of the worker; empty means every core that the driver may use."""
    devices: int = 1
    """Number of devices of the whole worker."""
    platform: str = "cpu"
    processes: int = 1
    """Number of processes that train the run together (config.process_group). Each gets `env` and `cores`."""


@dataclass(frozen=True)
class Exit:
    """The end of a worker. `code`: exit status, negative for a signal, None if it cannot be known."""

    code: int | None
    message: str
    preempted: bool = False
    """True if its machine failed or was given to another job: then no attempt is counted."""
    process: int = field(default=0, compare=False)
    """Index of the process whose end this is."""
    scheduler_message: str = ""
    """Message of the scheduler, if it explains more than the worker's log (engines.worker_processes)."""


def remote_environment(spec: WorkerSpec) -> dict[str, str]:
    """Return the environment of a worker that is not a child process of the driver."""
    variables = {key: os.environ[key] for key in FORWARDED_VARIABLES if key in os.environ}
    return variables | {"PYTHONUTF8": "1", UMASK_VARIABLE: f"{umask():03o}"} | dict(spec.env)


def run_args(spec: WorkerSpec) -> list[str]:
    """Return the run directories as command-line arguments of a worker."""
    return [str(run.absolute()) for run in spec.runs]


def lost_exit(writer: ProcessInfo, place: str) -> Exit:
    """Make the exit of a worker that is not in `place`. Raises UserError if its process is alive."""
    process = f"process {writer.pid} on {writer.host}"
    if writer.alive():
        raise UserError(f"{process} trains it outside {place}. Continue there, or wait")
    return Exit(None, f"{process} trained it, but nothing of this sweep in {place} trains it now")


class Engine(Protocol):
    """An engine. Its handles are opaque: only the engine that made a handle understands it."""

    def check(self, specs: Sequence[WorkerSpec], files: Sequence[Path], note: Callable[[str], None]) -> None:
        """Raise UserError if a worker of `specs` could not run or read `files`. Called first."""

    def submit(self, spec: WorkerSpec) -> Any:
        """Start a worker, or take over the one that an earlier driver submitted. Returns its handle."""

    def adopt(self, writer: ProcessInfo, spec: WorkerSpec) -> Any:
        """Return a handle for another driver's worker. Raises UserError if it is out of reach."""

    def poll(self, handle: Any) -> Exit | None:
        """Return how the worker ended; None while it runs or waits."""

    def waiting(self, handle: Any) -> str:
        """Return why the worker has not started yet; empty once it has."""
        ...

    def cancel(self, handle: Any, *, hard: bool) -> None:
        """Ask a worker to save and exit, or kill it if `hard`."""

    def close(self) -> None:
        """Disconnect from the workers without stopping them."""
