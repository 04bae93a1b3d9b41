"""Progress of a running sweep: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from harness.core.errors import printable
from harness.launcher.runs import Run
from harness.records.run.pace import PredictedParts, RunCourse, run_course
from harness.records.run.status import State, Status, read_status
from harness.records.run.timeline import TimelineEntry, phase_spans, read_timeline
from harness.records.run.utilisation import active_sessions
from harness.records.sweep.time_left import MIN_SECONDS, TimeLeft, time_left, with_default_parts

SECONDS_BETWEEN_LINES = 10.0
SECONDS_BETWEEN_LEFT = 1.0
"""Seconds after which the time left is computed again: bars are drawn more often than it changes."""
MAX_ACTIVITIES = 2
"""Number of runs in a long phase that a line names."""
BAR_WIDTH, MIN_BAR_WIDTH, ROOM_FOR_DETAIL = 24, 4, 38
"""Columns of a progress bar, at most and at least, and of everything at its right."""


class SweepPace:
    """Share of a sweep that is done, its tokens per second since the first new step, and its time left."""

    def __init__(self, runs: Sequence[Run], predicted: Mapping[str, PredictedParts] | None = None) -> None:
        """`predicted`: parts of the predicted time of each run, by its name."""
        self._runs = runs
        self._predicted = with_default_parts(
            predicted or {}, {run.name: (run.flops, run.facts.steps) for run in runs}
        )
        self._statuses = {run.name: read_status(run.dir) for run in runs}
        self._before = {name: _trained_share(status) for name, status in self._statuses.items()}
        self._spans: dict[str, tuple[Any, list[TimelineEntry]]] = {}
        self._now = time.monotonic()
        self._first: float | None = None
        self._left: tuple[float, TimeLeft | None] = -math.inf, None

    def update(self, run: Run, status: Status) -> None:
        """Take in the status of a run. The clock of the pace starts at the first new step that is seen."""
        is_new = _trained_share(status) > _trained_share(self._statuses[run.name])
        self._statuses[run.name], self._now = status, time.monotonic()
        if is_new and self._first is None:
            self._first = self._now
            self._before = {name: _trained_share(last) for name, last in self._statuses.items()}

    @property
    def share(self) -> float:
        """Share of the sweep's FLOPs that is done, 0 to 1."""
        total = sum(run.flops for run in self._runs)
        flops = sum(run.flops * _completed_share(self._statuses[run.name]) for run in self._runs)
        return flops / total if total else 1.0

    @property
    def text(self) -> str:
        """Tokens per second of the machine and the time left, such as `12,345 tokens/s, 3:20 to 4:10 left`;
        each is left out until it is known."""
        left, speed = self._time_left(), self._tokens_per_second()
        parts = [f"{speed:,.0f} tokens/s" if speed is not None else "", left.text if left is not None else ""]
        return ", ".join(filter(None, parts))

    def _tokens_per_second(self) -> float | None:
        seconds = self._now - self._first if self._first is not None else 0.0
        if seconds < MIN_SECONDS:
            return None
        new = {name: _trained_share(status) - self._before[name] for name, status in self._statuses.items()}
        return sum(run.tokens * max(0.0, new[run.name]) for run in self._runs) / seconds

    def _time_left(self) -> TimeLeft | None:
        """Return the time left, computed at most every SECONDS_BETWEEN_LEFT."""
        moment, left = self._left
        if self._now - moment >= SECONDS_BETWEEN_LEFT:
            left = time_left(self._courses())
            self._left = self._now, left
        return left

    def _courses(self) -> list[RunCourse]:
        now = time.time()
        spans = {
            run.name: phase_spans(
                self._timeline(run), now if self._statuses[run.name].state is State.running else None
            )
            for run in self._runs
        }
        sessions = active_sessions([span for run_spans in spans.values() for span in run_spans])
        return [
            run_course(
                run.name,
                self._predicted[run.name],
                spans[run.name],
                status,
                is_active=status.state is State.running,
                session=sessions[-1][0] if sessions else 0.0,
            )
            for run in self._runs
            for status in [self._statuses[run.name]]
        ]

    def _timeline(self, run: Run) -> list[TimelineEntry]:
        """Return the timeline of a run, read again only if its file has changed."""
        try:
            stat = run.dir.timeline.stat()
        except OSError:
            return []
        key = stat.st_mtime_ns, stat.st_size
        if run.name not in self._spans or self._spans[run.name][0] != key:
            self._spans[run.name] = key, read_timeline(run.dir)
        return self._spans[run.name][1]


class LineDisplay:
    """Plain text: one line per finished run, and a line about the sweep every few seconds."""

    def __init__(
        self, runs: Sequence[Run], console: Console, predicted: Mapping[str, PredictedParts] | None = None
    ) -> None:
        self._console, self._pace = console, SweepPace(runs, predicted)
        self._count, self._total, self._last = 0, len(runs), time.monotonic()

    def show(self, active: Sequence[Run]) -> None:
        """Print the sweep's progress, at most every SECONDS_BETWEEN_LINES."""
        now = time.monotonic()
        if now - self._last < SECONDS_BETWEEN_LINES:
            return
        self._last = now
        statuses = {run.name: read_status(run.dir) for run in active}
        for run in active:
            self._pace.update(run, statuses[run.name])
        runs = f"{len(active)} run{'s' * (len(active) != 1)} at work"
        activities = [f"{name} {status.activity}" for name, status in statuses.items() if status.activity]
        parts = [f"{self._pace.share:4.0%} done", runs, self._pace.text, *activities[:MAX_ACTIVITIES]]
        self.note(", ".join(filter(None, parts)))

    def finished(self, run: Run, status: Status) -> None:
        """Print how a run ended, with its number among the finished."""
        self._pace.update(run, status)
        self._count += 1
        self.note(f"[{self._count}/{self._total}] {run.name}: {ending_text(status)}")

    def note(self, text: str) -> None:
        """Print a line."""
        self._console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Do nothing."""


class BarDisplay:
    """Progress bars: one for each running run, and one for the whole sweep."""

    def __init__(
        self, runs: Sequence[Run], console: Console, predicted: Mapping[str, PredictedParts] | None = None
    ) -> None:
        self._pace = SweepPace(runs, predicted)
        longest = max(cell_len(run.name) for run in runs) if runs else 0
        bar_width = min(BAR_WIDTH, max(MIN_BAR_WIDTH, console.width - longest - ROOM_FOR_DETAIL))
        self._progress = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(overflow="fold")),
            BarColumn(bar_width),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[detail]}", markup=False, table_column=Column(overflow="fold")),
            console=console,
            refresh_per_second=4,
        )
        self._sweep_bar = self._progress.add_task(f"{len(runs)} runs", total=1.0, detail="")
        self._bars: dict[str, TaskID] = {}
        self._progress.start()

    def show(self, active: Sequence[Run]) -> None:
        """Update the bars."""
        for name in self._bars.keys() - {run.name for run in active}:
            self._progress.remove_task(self._bars.pop(name))
        for run in active:
            status = read_status(run.dir)
            self._pace.update(run, status)
            if run.name not in self._bars:
                self._bars[run.name] = self._progress.add_task(run.name, total=run.facts.steps, detail="")
            detail = f"loss {status.loss:.3f}" if status.loss is not None else status.phase
            detail = printable(status.activity) or detail
            self._progress.update(self._bars[run.name], completed=status.step, detail=detail)
        self._progress.update(self._sweep_bar, completed=self._pace.share, detail=self._pace.text)

    def finished(self, run: Run, status: Status) -> None:
        """Print how a run ended."""
        self._pace.update(run, status)
        self._progress.console.print(f"{run.name}: {ending_text(status)}", markup=False, highlight=False)

    def note(self, text: str) -> None:
        """Print a line above the bars."""
        self._progress.console.print(printable(text), markup=False, highlight=False)

    def close(self) -> None:
        """Remove the bars."""
        self._progress.stop()


Display = LineDisplay | BarDisplay
"""Display of a sweep's progress."""


def make_display(runs: Sequence[Run], console: Console, predicted: Mapping[str, PredictedParts]) -> Display:
    """Make bars on a terminal, else plain lines. `predicted`: parts of the predicted time of each run."""
    display = BarDisplay if console.is_terminal else LineDisplay
    return display(runs, console, predicted)


def ending_text(status: Status) -> str:
    """Describe how a run ended, in one line."""
    loss = f", loss {status.loss:.4f}" if status.loss is not None else ""
    why = f" ({printable(status.message)})" if status.message else ""
    return f"{status.state.value} at step {status.step}{loss}{why}"


def _completed_share(status: Status) -> float:
    return 1.0 if status.state.is_final else _trained_share(status)


def _trained_share(status: Status) -> float:
    """Return the share of the steps that were trained; a run that failed for good does not add to it."""
    return min(status.step / status.steps, 1.0) if status.steps else 0.0
