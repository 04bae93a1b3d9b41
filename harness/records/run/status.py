"""Status of a run, `status.json`, written only by the worker of the run."""

from __future__ import annotations

import dataclasses
import os
import socket
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from harness.core.atomic_files import read_checksummed_json, write_checksummed_json
from harness.records.paths import RunDir
from harness.records.typed_values import fields_fit


class State(Enum):
    """State of a run."""

    pending = "pending"
    running = "running"
    waiting = "waiting"
    """Paused at an interim look, until the scale is decided."""
    finished = "finished"
    diverged = "diverged"
    oom = "oom"
    refused = "refused"
    """The config cannot run here, for example it needs more memory than a device has."""
    failed = "failed"
    preempted = "preempted"
    """Told to stop; the same command continues the run."""
    stopped = "stopped"
    """Ended by the rule at an interim look, with all runs of its scale."""
    lost = "lost"

    @property
    def ended(self) -> bool:
        """True if training is over, by itself or by the rule."""
        return self in (State.finished, State.diverged, State.stopped)

    @property
    def is_final(self) -> bool:
        """True if this command makes no further attempt; the next command does after `refused`."""
        return self.ended or self is State.refused


@dataclass(frozen=True)
class ProcessInfo:
    """Identity of a process: host, process id, and start time, which tells apart reused ids."""

    host: str
    pid: int
    started: str

    @staticmethod
    def current() -> ProcessInfo:
        """Return this process."""
        return ProcessInfo.from_pid(os.getpid())

    @staticmethod
    def from_pid(pid: int) -> ProcessInfo:
        """Return the process that has this id now on this host."""
        return ProcessInfo(socket.gethostname(), pid, _start_time(pid) or "")

    def alive(self) -> bool | None:
        """Return whether the process still runs; None if it is on another host."""
        if self.host != socket.gethostname():
            return None
        return bool(self.started) and _start_time(self.pid) == self.started


@dataclass(frozen=True)
class Status:
    """Content of `status.json`."""

    state: State = State.pending
    step: int = 0
    steps: int = 0
    tokens: int = 0
    phase: str = ""
    """Phase: open, compile, memory (waiting for it), train, evaluate, save, branch, end."""
    activity: str = ""
    """Text of what a long phase does now, and how far it is; empty while steps are trained."""
    progress: int = 0
    """Counter of heartbeats: steps, and pieces of work of long phases."""
    attempt: int = 0
    loss: float | None = None
    tokens_per_second: float | None = None
    message: str = ""
    """Sentence that explains an end state."""
    writer: ProcessInfo | None = None
    input_share: float | None = None
    """Share of the training time so far that was spent waiting for input."""

    @property
    def died_before_a_step(self) -> bool:
        """True if an attempt ended silently before it had a loss, as when a program crashes a worker."""
        return self.state in (State.running, State.lost) and self.loss is None


def read_status(run: RunDir) -> Status:
    """Return the last status; `pending` if it is missing or unreadable."""
    return read_intact_status(run) or Status()


def read_intact_status(run: RunDir) -> Status | None:
    """Return the last status; None if it is missing or unreadable."""
    record = read_checksummed_json(run.status)
    if record is None:
        return None
    names = {f.name for f in dataclasses.fields(Status)}
    fields = {key: value for key, value in record.items() if key in names}
    writer = fields.pop("writer", None)
    try:
        process = ProcessInfo(**writer) if writer else None
        status = Status(**fields | {"state": State(fields["state"]), "writer": process})
    except (KeyError, ValueError, TypeError):
        return None
    # The loss of a diverged run may be NaN.
    return status if fields_fit(status, finite=False) and (process is None or fields_fit(process)) else None


def write_status(run: RunDir, status: Status) -> None:
    """Write `status.json` with a checksum."""
    record = dataclasses.asdict(status)
    write_checksummed_json(run.status, record | {"state": status.state.value})


def _start_time(pid: int) -> str | None:
    """Return `BOOT_ID:CLOCK_TICKS` of a process's start; None if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    return None if fields[0] == "Z" else f"{boot}:{fields[19]}"
