"""What a sweep looks like while it runs: bars on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from harness.core.number_format import clock
from harness.launcher.runs import Run
from harness.records.run.status import Status, read_status

SECONDS_BETWEEN_LINES = 10.0


class Display(Protocol):
    def show(self, active: Sequence[Run]) -> None:
        """The runs that are at work now."""
        ...

    def finished(self, run: Run, status: Status) -> None: ...

    def note(self, text: str) -> None: ...

    def close(self) -> None: ...


def make_display(runs: Sequence[Run], console: Console) -> Display:
    return Bars(runs, console) if console.is_terminal else Lines(runs, console)


class Tally:
    """How much of the sweep is done, in FLOPs, and when the rest will be."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._total = sum(run.flops for run in runs)
        self._done = {run.name: run.flops * _share(read_status(run.dir)) for run in runs}
        self._begin, self._start = time.monotonic(), sum(self._done.values())

    def update(self, run: Run, status: Status) -> None:
        self._done[run.name] = run.flops * _share(status)

    @property
    def share(self) -> float:
        return sum(self._done.values()) / self._total if self._total else 1.0

    @property
    def seconds_left(self) -> float | None:
        """At the pace so far; None before there is one."""
        passed, gained = time.monotonic() - self._begin, sum(self._done.values()) - self._start
        return passed * (self._total - sum(self._done.values())) / gained if gained > 0 else None


class Lines:
    """One line a finished run, and a line on the whole every few seconds."""

    def __init__(self, runs: Sequence[Run], console: Console) -> None:
        self._console, self._tally = console, Tally(runs)
        self._count, self._total, self._last = 0, len(runs), time.monotonic()

    def show(self, active: Sequence[Run]) -> None:
        now = time.monotonic()
        if now - self._last < SECONDS_BETWEEN_LINES:
            return
        self._last = now
        statuses = [(run, read_status(run.dir)) for run in active]
        for run, status in statuses:
            self._tally.update(run, status)
        speed = sum(status.tokens_per_second or 0.0 for _, status in statuses)
        left = self._tally.seconds_left
        self._say(
            f"{self._tally.share:4.0%} done, {len(active)} runs at work, {speed:,.0f} tokens/s"
            + (f", {clock(left)} left" if left is not None else "")
        )

    def finished(self, run: Run, status: Status) -> None:
        self._tally.update(run, status)
        self._count += 1
        self._say(f"[{self._count}/{self._total}] {run.name}: {ending(status)}")

    def note(self, text: str) -> None:
        self._say(text)

    def close(self) -> None:
        pass

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class Bars:
    """A bar for each lane at work, and one for the whole sweep."""

    def __init__(self, runs: Sequence[Run], console: Console) -> None:
        self._tally = Tally(runs)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[detail]}"),
            TimeRemainingColumn(),
            console=console,
            refresh_per_second=4,
        )
        self._whole = self._progress.add_task(f"{len(runs)} runs", total=1.0, detail="")
        self._bars: dict[str, TaskID] = {}
        self._progress.start()

    def show(self, active: Sequence[Run]) -> None:
        for name in self._bars.keys() - {run.name for run in active}:
            self._progress.remove_task(self._bars.pop(name))
        for run in active:
            status = read_status(run.dir)
            self._tally.update(run, status)
            if run.name not in self._bars:
                self._bars[run.name] = self._progress.add_task(run.name, total=run.facts.steps, detail="")
            self._progress.update(self._bars[run.name], completed=status.step, detail=_detail(status))
        left = self._tally.seconds_left
        detail = f"{clock(left)} left" if left is not None else ""
        self._progress.update(self._whole, completed=self._tally.share, detail=detail)

    def finished(self, run: Run, status: Status) -> None:
        self._tally.update(run, status)
        self._progress.console.print(f"{run.name}: {ending(status)}", markup=False, highlight=False)

    def note(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        self._progress.stop()


def ending(status: Status) -> str:
    """How a run ended, for a line of its own."""
    loss = f", loss {status.loss:.4f}" if status.loss is not None else ""
    why = f" ({status.message})" if status.message else ""
    return f"{status.state.value} at step {status.step}{loss}{why}"


def _share(status: Status) -> float:
    if status.state.settled:
        return 1.0
    return min(status.step / status.steps, 1.0) if status.steps else 0.0


def _detail(status: Status) -> str:
    loss = f"loss {status.loss:.3f}" if status.loss is not None else status.phase
    speed = f"{status.tokens_per_second:,.0f} tokens/s" if status.tokens_per_second else ""
    return f"{loss}  {speed}"
