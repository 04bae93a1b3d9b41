"""How a run is doing, as a file that only its own lane writes."""

from __future__ import annotations

import dataclasses
import os
import socket
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from harness.core.atomic_files import read_checksummed_json, write_checksummed_json
from harness.records.paths import RunDir


class State(Enum):
    pending = "pending"
    running = "running"
    waiting = "waiting"
    """At a look, until the scale is decided."""
    finished = "finished"
    diverged = "diverged"
    oom = "oom"
    refused = "refused"
    """Asks for what is not there, such as more memory than a device has: trained once that was mended."""
    failed = "failed"
    preempted = "preempted"
    """Told to leave; the same command continues."""
    stopped = "stopped"
    """Ended at a look by the rule, with every other run of its scale."""
    lost = "lost"

    @property
    def ended(self) -> bool:
        """Its training is over: by itself, or by the rule."""
        return self in (State.finished, State.diverged, State.stopped)

    @property
    def is_final(self) -> bool:
        """Another attempt would end alike: it is not made by this command, and by the next one if the run
        was refused."""
        return self.ended or self is State.refused


@dataclass(frozen=True)
class ProcessInfo:
    """Who trains a run: alive if this process, started then, still runs on that host."""

    host: str
    pid: int
    started: str

    @staticmethod
    def current() -> ProcessInfo:
        return ProcessInfo.from_pid(os.getpid())

    @staticmethod
    def from_pid(pid: int) -> ProcessInfo:
        """The process that has this id now on this host."""
        return ProcessInfo(socket.gethostname(), pid, _start_time(pid) or "")

    def alive(self) -> bool | None:
        """None where another host would have to be asked."""
        if self.host != socket.gethostname():
            return None
        return bool(self.started) and _start_time(self.pid) == self.started


@dataclass(frozen=True)
class Status:
    state: State = State.pending
    step: int = 0
    steps: int = 0
    tokens: int = 0
    phase: str = ""
    """What the lane does: open, compile, memory (it waits for it), train, evaluate, save, branch, end."""
    progress: int = 0
    """Counts up with each sign of life of the lane's own loop."""
    attempt: int = 0
    loss: float | None = None
    tokens_per_second: float | None = None
    message: str = ""
    """One sentence, for an end state that needs explaining."""
    writer: ProcessInfo | None = None
    input_share: float | None = None
    """Of the run's training time so far, what the lane waited for its input."""


def read_status(run: RunDir) -> Status:
    """The last status written; `pending` where there is none or it is unreadable."""
    record = read_checksummed_json(run.status)
    if record is None:
        return Status()
    names = {f.name for f in dataclasses.fields(Status)}
    fields = {key: value for key, value in record.items() if key in names}
    writer = fields.pop("writer", None)
    try:
        return Status(
            **fields | {"state": State(fields["state"]), "writer": ProcessInfo(**writer) if writer else None}
        )
    except (KeyError, ValueError, TypeError):
        return Status()


def write_status(run: RunDir, status: Status) -> None:
    record = dataclasses.asdict(status)
    write_checksummed_json(run.status, record | {"state": status.state.value})


def _start_time(pid: int) -> str | None:
    """A process's start in clock ticks since boot, with the boot's id; None if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    return None if fields[0] == "Z" else f"{boot}:{fields[19]}"
