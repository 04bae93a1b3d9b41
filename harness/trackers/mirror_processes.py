"""Processes that mirror a sweep, one a tracker, as the command that trains or sends it sees them.

A tracker that hangs holds up neither the others nor the sweep: its process is waited for only as long as it
sends something, and then ended. What it did not send, `harness mirror` sends later.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from harness.config.schema.tracker import TrackerConfig
from harness.core import atomic_files
from harness.core.hashing import to_plain
from harness.records.paths import SweepDir
from harness.trackers.known_trackers import chosen_trackers, where_to_look
from harness.trackers.sent_runs import record_path

STALL_SECONDS, INTERRUPTED_SECONDS = 15.0, 5.0
"""Seconds without a sign of life after which a process is not waited for, at the end and after Ctrl-C."""
LIMIT = 120.0
"""Seconds for which a process that is at work is waited for at the end of a sweep."""
CHECK_SECONDS = 0.05
Note = Callable[[str], None]


@dataclass
class MirrorProcess:
    """Process that mirrors a sweep in one tracker."""

    tracker: str
    sweep: SweepDir
    process: subprocess.Popen[bytes]

    @staticmethod
    def start(sweep: SweepDir, tracker: str, order: dict[str, Any]) -> MirrorProcess:
        """Start the process. `order`: the first line of its input. Raises OSError if the system starts none,
        or the log cannot be written."""
        sweep.trackers.mkdir(parents=True, exist_ok=True)
        arguments = [str(sweep.path.absolute()), tracker]
        with (sweep.trackers / f"{tracker}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "harness.trackers.mirror_process", *arguments],
                stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
                env=os.environ | {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has died, which `wait` finds out
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.flush()
        return MirrorProcess(tracker, sweep, process)

    def end_input(self) -> None:
        """Ask for the last pass."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def wait(self, stall_seconds: float, limit: float) -> str:
        """Wait while the process is at work, at most `limit` seconds. Return why not everything was sent; ''
        if it was. A process that is not done by then is ended."""
        last_sign, signs = time.monotonic(), self._signs_of_life()
        deadline = last_sign + limit
        while self.process.poll() is None and time.monotonic() < min(last_sign + stall_seconds, deadline):
            time.sleep(CHECK_SECONDS)
            if (new_signs := self._signs_of_life()) != signs:
                signs, last_sign = new_signs, time.monotonic()
        status = self.process.poll()
        self.kill()
        if status == 0:
            return ""
        if status is None:
            is_slow = time.monotonic() >= deadline
            return f"it was not done after {limit:.0f} seconds" if is_slow else "it does not answer"
        if status < 0:
            return f"its process was ended by {signal.Signals(-status).name}"
        stored = atomic_files.read_checksummed_json(record_path(self.sweep, self.tracker)) or {}
        return str(stored.get("problem") or f"its process failed: {self._last_log_line()}")

    def kill(self) -> None:
        """End the process with all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _signs_of_life(self) -> tuple[str, ...]:
        """Return the time of the last record and the processor time used so far."""
        signs = []
        with contextlib.suppress(OSError):
            signs.append(str(record_path(self.sweep, self.tracker).stat().st_mtime_ns))
        with contextlib.suppress(OSError):
            signs += Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return tuple(signs)

    def _last_log_line(self) -> str:
        log = self.sweep.trackers / f"{self.tracker}.log"
        text = log.read_text(errors="replace").strip() if log.exists() else ""
        return text.rpartition("\n")[2] or "its log is empty"


class SweepMirrors:
    """Mirrors of a sweep while it is trained. As a context, it waits for them at the end."""

    def __init__(self, config: TrackerConfig, note: Note, is_beside_training: bool = True) -> None:
        """`note` prints a sentence."""
        self._config, self._note, self._is_beside_training = config, note, is_beside_training
        self._mirrors: list[MirrorProcess] = []

    def start(self, sweep: SweepDir) -> None:
        """Start a process for each tracker of the config. A failure is said, and stops nothing."""
        for tracker in chosen_trackers(self._config):
            try:
                settings = to_plain(getattr(self._config, tracker))
                order = {"settings": settings, "is_beside_training": self._is_beside_training}
                self._mirrors.append(MirrorProcess.start(sweep, tracker, order))
            except OSError as error:
                self._note(_unsent_sentence(sweep, tracker, error.strerror or str(error)))

    def finish(self, stall_seconds: float = STALL_SECONDS) -> bool:
        """Wait for the rest, and say where each tracker shows the sweep, or what was not sent. Return whether
        everything was sent."""
        mirrors, self._mirrors = self._mirrors, []
        for mirror in mirrors:
            mirror.end_input()
        problems = []
        try:
            for mirror in mirrors:
                problem = mirror.wait(stall_seconds, LIMIT if self._is_beside_training else math.inf)
                problems.append(problem)
                sweep = mirror.sweep
                place = where_to_look(mirror.tracker, sweep.trackers, self._config)
                sentence = f"tracker={mirror.tracker}: all of it is sent; look with {place}"
                self._note(_unsent_sentence(sweep, mirror.tracker, problem) if problem else sentence)
        finally:
            for mirror in mirrors:
                mirror.kill()
        return not any(problems)

    def __enter__(self) -> SweepMirrors:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish(STALL_SECONDS if error is None else INTERRUPTED_SECONDS)


def _unsent_sentence(sweep: SweepDir, tracker: str, problem: str) -> str:
    return (
        f"tracker={tracker}: not everything was sent ({problem.rstrip('.')}). The records of the sweep are "
        f"complete; `harness mirror {sweep.path} --to {tracker}` sends the rest."
    )
