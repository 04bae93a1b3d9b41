"""One sweep under faults: its command, its processes, its files."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.records.paths import RunDir, SweepDir
from harness.records.run.run_lock import worker_of
from harness.records.run.status import State, read_status
from tests.launcher.soak.disk import Disk

ROOT = Path(__file__).parents[3]
MARK = "SOAK"


@dataclass
class Site:
    """`command` is given in the folder of the disk. Every process of it carries the folder in its
    environment: no other one is ever signalled."""

    command: Sequence[str]
    sweep: SweepDir
    disk: Disk
    outside: Path
    """Files that the sweep does not know of: the clock, what the command prints."""
    driver: subprocess.Popen | None = None

    @property
    def clock(self) -> Path:
        return self.outside / "clock"

    def start(self) -> None:
        path = os.pathsep.join([str(Path(__file__).parent / "clock"), str(ROOT)])
        env = {
            MARK: str(self.outside),
            "SOAK_CLOCK": str(self.clock),
            "SOAK_FULL": str(self.outside / "full"),
        }
        with (self.outside / "driver.log").open("ab") as log:
            self.driver = subprocess.Popen(
                self.command,
                cwd=self.disk.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | env | {"PYTHONPATH": path},
            )

    def driving(self) -> bool:
        return self.driver is not None and self.driver.poll() is None

    def last_words(self) -> str:
        return (self.outside / "driver.log").read_text(errors="replace")[-3000:]

    def finish(self, seconds: float) -> None:
        """Wait for the driver that is there; then the command runs to its end once more, with status 0."""
        if self.driver is not None:
            self.driver.wait(seconds)
        self.start()
        assert self.driver is not None
        assert self.driver.wait(seconds) == 0, self.last_words()

    def runs(self) -> list[RunDir]:
        return [*self.sweep.runs()]

    def training(self) -> bool:
        statuses = [read_status(run) for run in self.runs()]
        return any(status.state is State.running and status.step > 0 for status in statuses)

    def workers(self) -> list[int]:
        held = {writer.pid for run in self.runs() if (writer := worker_of(run)) is not None}
        return sorted(pid for pid in held if self._ours(pid))

    def servers(self) -> list[int]:
        """Fork servers: children of the driver that preload for workers."""
        if self.driver is None or not self.driving():
            return []
        children = Path(f"/proc/{self.driver.pid}/task/{self.driver.pid}/children")
        with contextlib.suppress(OSError):
            found = [int(pid) for pid in children.read_text().split()]
            return [pid for pid in found if self._ours(pid) and b"fork_server" in _read(pid, "cmdline")]
        return []

    def processes(self) -> list[int]:
        return [pid for pid in _processes() if self._ours(pid)]

    def send(self, pid: int, number: signal.Signals) -> bool:
        """False where the process is gone, or is not of this sweep."""
        if not self._ours(pid):
            return False
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        return True

    def end(self) -> None:
        """Whatever is left, ended."""
        for pid in self.processes():
            self.send(pid, signal.SIGKILL)
        if self.driver is not None:
            self.driver.wait()

    def _ours(self, pid: int) -> bool:
        return f"{MARK}={self.outside}".encode() in _read(pid, "environ").split(b"\0")


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _read(pid: int, name: str) -> bytes:
    """Empty for a process that is gone, or a zombie."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
