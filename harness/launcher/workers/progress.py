"""Progress of a running sweep: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from harness.core.errors import printable
from harness.core.number_format import format_clock
from harness.launcher.runs import Run
from harness.records.run.pace import Pace
from harness.records.run.status import Status, read_status

SECONDS_BETWEEN_LINES = 10.0
MAX_ACTIVITIES = 2
"""Number of runs in a long phase that a line names."""
BAR_WIDTH, MIN_BAR_WIDTH, ROOM_FOR_DETAIL = 24, 4, 38
"""Columns of a progress bar, at most and at least, and of everything at its right."""


class SweepPace:
    """Share of a sweep that is done, and the pace of the whole machine since the first new step."""

    def __init__(self, runs: Sequence[Run]) -> None:
        statuses = [(run, read_status(run.dir)) for run in runs]
        self._runs = runs
        self._done = {run.name: _completed_share(status) for run, status in statuses}
        self._trained = {run.name: _trained_share(status) for run, status in statuses}
        self._whole, self._now = self._left, time.monotonic()
        self._first: tuple[float, dict[str, float]] | None = None

    def update(self, run: Run, status: Status) -> None:
        """Take in the status of a run. The clock of the pace starts at the first new step that is seen."""
        trained, self._now = _trained_share(status), time.monotonic()
        is_new = trained > self._trained[run.name]
        self._done[run.name], self._trained[run.name] = _completed_share(status), trained
        if is_new and self._first is None:
            self._first = self._now, dict(self._trained)

    @property
    def share(self) -> float:
        """Share of the sweep's FLOPs that is done, 0 to 1."""
        total = sum(run.flops for run in self._runs)
        return 1 - self._left / total if total else 1.0

    @property
    def text(self) -> str:
        """Tokens per second of the machine and the time left, such as `12,345 tokens/s, 3:21 left`; empty
        until the pace is known."""
        begin, before = self._first or (self._now, self._trained)
        shares = {name: max(0.0, share - before[name]) for name, share in self._trained.items()}
        flops = sum(run.flops * shares[run.name] for run in self._runs)
        tokens = sum(run.tokens * shares[run.name] for run in self._runs)
        pace = Pace(flops, self._now - begin, self._whole)
        left = pace.seconds_for(self._left)
        return "" if left is None else f"{tokens / pace.seconds:,.0f} tokens/s, {format_clock(left)} left"

    @property
    def _left(self) -> float:
        """FLOPs of the steps that are not done."""
        return sum(run.flops * (1 - self._done[run.name]) for run in self._runs)


class LineDisplay:
    """Plain text: one line per finished run, and a line about the sweep every few seconds."""

    def __init__(self, runs: Sequence[Run], console: Console) -> None:
        self._console, self._pace = console, SweepPace(runs)
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

    def __init__(self, runs: Sequence[Run], console: Console) -> None:
        self._pace = SweepPace(runs)
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


def make_display(runs: Sequence[Run], console: Console) -> Display:
    """Make bars on a terminal, else plain lines."""
    return BarDisplay(runs, console) if console.is_terminal else LineDisplay(runs, console)


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
