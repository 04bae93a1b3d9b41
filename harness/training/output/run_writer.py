"""What a lane writes while it trains: rows until the next part, signs of life, a log."""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from typing import Any

from harness.records.paths import RunDir
from harness.records.run import metrics
from harness.records.run.status import ProcessInfo, State, Status, write_status
from harness.records.run.timeline import END, Timeline

HEARTBEAT_SECONDS = 0.5


class RunWriter:
    """The one writer of a run directory's status, metrics, log and timeline; used by one thread.

    A branch writes into the timeline of its parent, whose lane it is trained in, under its `share`.
    """

    def __init__(
        self,
        run: RunDir,
        steps: int,
        written_step: int,
        attempt: int,
        timeline: Timeline | None = None,
        share: float = 1.0,
    ):
        self.run, self.timeline, self._share = run, timeline, share
        self._rows: dict[str, list[dict[str, Any]]] = {kind: [] for kind in metrics.SCHEMAS}
        self._written_step = written_step
        self._status = Status(step=written_step, steps=steps, attempt=attempt, writer=ProcessInfo.here())
        self._last_write = -math.inf

    def resume(self, step: int) -> None:
        """The curve is on disk up to `step`; rows continue from there."""
        self._written_step = step
        self._status = dataclasses.replace(self._status, step=step)
        self.log(f"continues from step {step}")

    @property
    def status(self) -> Status:
        return self._status

    def update_status(self, **changes: Any) -> None:
        """Facts that stand in the status from its next sign of life on."""
        self._status = dataclasses.replace(self._status, **changes)

    def heartbeat(self, phase: str, **changes: Any) -> None:
        """A sign of life: written at once when the phase changes, else at most twice a second."""
        new_phase = phase != self._status.phase
        self._status = dataclasses.replace(
            self._status, state=State.running, phase=phase, progress=self._status.progress + 1, **changes
        )
        self.set_phase(phase)
        if new_phase or time.monotonic() - self._last_write > HEARTBEAT_SECONDS:
            self._write()

    def set_phase(self, phase: str) -> None:
        """What the lane does from now on, in its timeline alone: nothing waits for a disk."""
        if self.timeline:
            self.timeline.set_phase(phase, self._status.step, self._share)

    def end(self, state: State, message: str = "") -> None:
        """The end state, also on a full disk: then it goes to the worker's own output."""
        self._status = dataclasses.replace(self._status, state=state, phase="end", message=message)
        if self._share == 1.0:
            self.set_phase(END)
        text = f"{state.value} at step {self._status.step}{': ' if message else ''}{message}"
        try:
            self.log(text)
            self._write()
        except OSError as error:
            print(f"{self.run.path}: {text} ({error})", file=sys.stderr, flush=True)

    def add(self, kind: str, row: dict[str, Any]) -> None:
        self._rows[kind].append(row)

    def write_part(self, step: int) -> None:
        """Everything up to `step` becomes a part on disk."""
        if step > self._written_step:
            for kind, rows in self._rows.items():
                metrics.write_part(self.run, kind, self._written_step, step, rows)
                rows.clear()
            self._written_step = step

    def log(self, text: str) -> None:
        with self.run.log.open("a") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def _write(self) -> None:
        write_status(self.run, self._status)
        self._last_write = time.monotonic()


class NullWriter(RunWriter):
    """Of a process that does not lead: all that it could write is written by process 0, and what it has to
    log goes to its worker's own output."""

    def write_part(self, step: int) -> None:
        for rows in self._rows.values():
            rows.clear()
        self._written_step = step

    def log(self, text: str) -> None:
        print(f"{self.run.path}: {text}", flush=True)

    def _write(self) -> None:
        self._last_write = time.monotonic()
