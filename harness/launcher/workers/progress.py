"""Progress of a running sweep: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from harness.core.errors import printable
from harness.core.number_format import format_clock
from harness.launcher.runs import Run
from harness.records.run.status import Status, read_status

SECONDS_BETWEEN_LINES = 10.0


class DoneShare:
    """Share of the sweep's FLOPs that is done, and the time left."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._total = sum(run.flops for run in runs)
        self._done = {run.name: run.flops * _completed_share(read_status(run.dir)) for run in runs}
        self._begin, self._start = time.monotonic(), sum(self._done.values())

    def update(self, run: Run, status: Status) -> None:
        """Take in the status of a run."""
        self._done[run.name] = run.flops * _completed_share(status)

    @property
    def share(self) -> float:
        """Share of the FLOPs that is done, 0 to 1."""
        return sum(self._done.values()) / self._total if self._total else 1.0

    @property
    def seconds_left(self) -> float | None:
        """Seconds left at the pace so far; None before any progress."""
        elapsed, progress = time.monotonic() - self._begin, sum(self._done.values()) - self._start
        return elapsed * (self._total - sum(self._done.values())) / progress if progress > 0 else None


class LineDisplay:
    """Plain text: one line per finished run, and a line about the sweep every few seconds."""

    def __init__(self, runs: Sequence[Run], console: Console) -> None:
        self._console, self._done_share = console, DoneShare(runs)
        self._count, self._total, self._last = 0, len(runs), time.monotonic()

    def show(self, active: Sequence[Run]) -> None:
        """Print the sweep's progress, at most every SECONDS_BETWEEN_LINES."""
        now = time.monotonic()
        if now - self._last < SECONDS_BETWEEN_LINES:
            return
        self._last = now
        statuses = [(run, read_status(run.dir)) for run in active]
        for run, status in statuses:
            self._done_share.update(run, status)
        speed = sum(status.tokens_per_second or 0.0 for _, status in statuses)
        left = self._done_share.seconds_left
        self.note(
            f"{self._done_share.share:4.0%} done, {len(active)} runs at work, {speed:,.0f} tokens/s"
            + (f", {format_clock(left)} left" if left is not None else "")
        )

    def finished(self, run: Run, status: Status) -> None:
        """Print how a run ended, with its number among the finished."""
        self._done_share.update(run, status)
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
        self._done_share = DoneShare(runs)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[detail]}"),
            TimeRemainingColumn(),
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
            self._done_share.update(run, status)
            if run.name not in self._bars:
                self._bars[run.name] = self._progress.add_task(run.name, total=run.facts.steps, detail="")
            self._progress.update(self._bars[run.name], completed=status.step, detail=_detail(status))
        left = self._done_share.seconds_left
        detail = f"{format_clock(left)} left" if left is not None else ""
        self._progress.update(self._sweep_bar, completed=self._done_share.share, detail=detail)

    def finished(self, run: Run, status: Status) -> None:
        """Print how a run ended."""
        self._done_share.update(run, status)
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
    if status.state.is_final:
        return 1.0
    return min(status.step / status.steps, 1.0) if status.steps else 0.0


def _detail(status: Status) -> str:
    loss = f"loss {status.loss:.3f}" if status.loss is not None else status.phase
    speed = f"{status.tokens_per_second:,.0f} tokens/s" if status.tokens_per_second else ""
    return f"{loss}  {speed}"
