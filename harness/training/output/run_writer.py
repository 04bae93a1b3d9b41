"""Files that a run writes while it trains: metric parts, status, timeline, log."""

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
"""Seconds between two writes of the status while the phase stays the same."""


class RunWriter:
    """Only writer of a run directory's status, metrics, log and timeline; used by one thread. A branch writes
    into the timeline of its parent, on whose devices it trains, under its `share`."""

    def __init__(
        self,
        run: RunDir,
        steps: int,
        step: int,
        attempt: int,
        timeline: Timeline | None = None,
        share: float = 1.0,
        parent: RunWriter | None = None,
    ):
        """`parent`: writer of the run whose branch this is. It alone is watched, so it reports the branch."""
        self.run, self.timeline, self._share, self._parent = run, timeline, share, parent
        self._rows: dict[str, list[dict[str, Any]]] = {kind: [] for kind in metrics.SCHEMAS}
        self._written_step = step
        self._status = Status(step=step, steps=steps, attempt=attempt, writer=ProcessInfo.current())
        self._last_write = -math.inf
        self._notes: list[str] = []

    def resume(self, step: int) -> None:
        """Continue after `step`, up to which the curve is on disk."""
        self._written_step = step
        # A finished run that is opened again trains no step that would set them.
        last = metrics.read_curve(self.run, "steps").select("tokens", "loss").tail(1).to_dicts()
        self.update_status(step=step, **(last[0] if last else {}))
        self.log(f"continues from step {step}")

    @property
    def status(self) -> Status:
        """Status as of the last update; the file may be older."""
        return self._status

    def update_status(self, **changes: Any) -> None:
        """Change fields of the status, to be written with the next heartbeat."""
        self._status = dataclasses.replace(self._status, **changes)

    def heartbeat(self, phase: str, **changes: Any) -> None:
        """Update the heartbeat: at once when the phase changes, otherwise at most twice a second."""
        new_phase = phase != self._status.phase
        self.update_status(state=State.running, phase=phase, activity="", **changes)
        self.set_phase(phase)
        self._beat(new_phase)
        if self._parent:
            self._parent.report(f"branch {self._share:.0%}: step {self._status.step} of {self._status.steps}")

    def report(self, activity: str) -> None:
        """Update the heartbeat within a phase, with what it does and how far it is (core.progress)."""
        self.update_status(activity=activity)
        self._beat(False)
        if self._parent:
            self._parent.report(f"branch {self._share:.0%}: {activity}")

    def _beat(self, at_once: bool) -> None:
        """Count a sign of life, and write it at once or at most twice a second."""
        self.update_status(progress=self._status.progress + 1)
        if at_once or time.monotonic() - self._last_write > HEARTBEAT_SECONDS:
            self._write()

    def set_phase(self, phase: str) -> None:
        """Set the phase in the timeline only, which never waits for a disk."""
        if self.timeline:
            self.timeline.set_phase(phase, self._status.step, self._share)

    def note(self, text: str) -> None:
        """Log a sentence that belongs to the end state too, since it is shown to the user."""
        self.log(text)
        self._notes.append(text.rstrip("."))

    def end(self, state: State, message: str = "") -> None:
        """Write the end state and log it; on a full disk print it to the worker's stderr."""
        message = "; ".join([*filter(None, [message]), *self._notes])
        self._status = dataclasses.replace(
            self._status, state=state, phase="end", activity="", message=message
        )
        if self._share == 1.0:
            self.set_phase(END)
        text = f"{state.value} at step {self._status.step}{': ' if message else ''}{message}"
        try:
            self.log(text)
            self._write()
        except OSError as error:
            print(f"{self.run.path}: {text} ({error})", file=sys.stderr, flush=True)

    def add(self, kind: str, row: dict[str, Any]) -> None:
        """Add a row to the next part of the metrics `kind`."""
        self._rows[kind].append(row)

    def write_part(self, step: int) -> None:
        """Write all rows up to `step` as a part on disk."""
        if step > self._written_step:
            for kind, rows in self._rows.items():
                metrics.write_part(self.run, kind, self._written_step, step, rows)
                rows.clear()
            self._written_step = step

    def log(self, text: str) -> None:
        """Append a line to the run's log, with the time."""
        with self.run.log.open("a") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def _write(self) -> None:
        write_status(self.run, self._status)
        self._last_write = time.monotonic()


class NullWriter(RunWriter):
    """Writer for a non-primary process: drops rows and status (process 0 writes them), logs to stdout."""

    def write_part(self, step: int) -> None:
        """Drop all rows up to `step`."""
        for rows in self._rows.values():
            rows.clear()
        self._written_step = step

    def log(self, text: str) -> None:
        """Print the line to the worker's stdout."""
        print(f"{self.run.path}: {text}", flush=True)

    def _write(self) -> None:
        self._last_write = time.monotonic()
