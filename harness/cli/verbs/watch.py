"""The verb `watch`: a sweep live in the terminal, read from its directories while another process drives."""

from __future__ import annotations

import contextlib
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness.cli.verb_parser import VerbParser
from harness.core.number_format import (
    MISSING,
    format_clock,
    format_count,
    format_loss,
    format_signed,
    plain_text,
)
from harness.records.run import utilisation
from harness.records.run.utilisation import Utilisation
from harness.records.sweep.find_sweep import find_sweep, read_sweep
from harness.report.frames.sweep_progress import DELTA_STEPS, ProgressReader, RunProgress, SweepProgress
from harness.report.tables.terminal import NARROW, WIDE

REFRESH_SECONDS, LOAD = 1.0, 0.1
"""Between two pictures at least; share of a core that watching may take from what is watched."""
MIN_LINES = 5
"""Lines of each kind that are shown however low the screen is."""
LONGEST_BAR = 100
MAX_NAMED = 4
"""Runs of the queue that are named."""


def watch_command(arguments: Sequence[str]) -> int:
    """Live until the sweep is over, q or Ctrl-C; one frame where the output is no terminal."""
    parser = VerbParser("harness watch", add_help=False)
    parser.add_argument("sweep", metavar="SWEEP")
    parser.add_argument("--once", action="store_true")
    options = parser.parse_args(arguments)
    console = Console()
    if options.once or not console.is_terminal:
        console.print(
            draw_frame(ProgressReader(read_sweep(options.sweep)).read(time.time()), console.width, None)
        )
        return 0
    reader = ProgressReader(find_sweep(options.sweep))
    with contextlib.suppress(KeyboardInterrupt), _key_reader() as read_key, _live(console) as live:
        while True:
            cpu_start, progress = time.process_time(), reader.read(time.time())
            live.update(draw_frame(progress, console.width, console.height), refresh=True)
            pause = max(REFRESH_SECONDS, (time.process_time() - cpu_start) / LOAD)
            if progress.is_over or read_key(pause) == "q":
                break
    return 0


def _live(console: Console) -> Live:
    return Live(console=console, auto_refresh=False)


@contextlib.contextmanager
def _key_reader() -> Iterator[Callable[[float], str]]:
    """A function that waits so many seconds for a key, and returns it, or ''."""
    if not sys.stdin.isatty():
        yield lambda seconds: time.sleep(seconds) or ""
        return

    def pressed(seconds: float) -> str:
        return sys.stdin.read(1) if select.select([sys.stdin], [], [], seconds)[0] else ""

    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield pressed
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def draw_frame(progress: SweepProgress, width: int, height: int | None) -> Group:
    """One picture of the fleet, for a screen of so many columns, and rows if they are bounded."""
    lines = (
        max(MIN_LINES, height - 14 - min(MIN_LINES, len(progress.failures))) if height else len(progress.runs)
    )
    running, failures = progress.running[:lines], progress.failures[: MIN_LINES if height else None]
    parts = [
        _summary_line(progress),
        _own_line(ProgressBar(1.0, progress.done_share, width=min(width, LONGEST_BAR))),
    ]
    if running:
        parts += [_table(running, progress.control, width), _own_line("")]
    parts += [_more_line(len(progress.running) - len(running), "at work"), *map(_failure_line, failures)]
    parts += [_more_line(len(progress.failures) - len(failures), "with a failure"), *_queue_lines(progress)]
    parts += [_utilisation_line(progress.utilisation), _delta_legend(progress, running), _idle_hint(progress)]
    return Group(*[part for part in parts if not isinstance(part, Text) or part])


def _own_line(content: ProgressBar | str) -> Table:
    """A line of its own, which a bar is not by itself."""
    grid = Table.grid()
    grid.add_row(content)
    return grid


def _summary_line(progress: SweepProgress) -> Text:
    left = progress.seconds_left
    speed = sum(run.tokens_per_second or 0.0 for run in progress.running)
    parts = [f"{len(progress.runs)} runs", f"{progress.done_share:.0%} done"]
    parts += [f"{format_count(round(speed))} tokens/s"] if speed else []
    parts += [f"{format_clock(left)} left"] if left is not None else []
    return Text(plain_text(progress.name), style="bold").append(f": {', '.join(parts)}", style="default")


def _table(runs: Sequence[RunProgress], control: str, width: int) -> Table:
    """The runs at work; the bar, the lane and the speed only where there is room, then what of its time each
    waits for input."""
    wide = width >= NARROW
    table = Table(box=None, padding=(0, 1), header_style="dim", pad_edge=False)
    table.add_column("run", no_wrap=True, overflow="ellipsis")
    names = ["lane", "phase", "", "step", "loss", f"Δ {control}" if control else "Δ", "tokens/s", "left"]
    names += ["input"] if width >= WIDE else []
    for name in [name for name in names if wide or name not in ("lane", "", "tokens/s")]:
        side = "left" if name in ("phase", "") else "right"
        table.add_column(Text(plain_text(name)), justify=side, no_wrap=True)
    for run in runs:
        table.add_row(*_row(run, wide=wide), *([_input_share(run)] if width >= WIDE else []))
    return table


def _row(run: RunProgress, *, wide: bool) -> list[Text | ProgressBar]:
    devices = run.timeline[-1].width if run.timeline else None
    lane = MISSING if run.lane is None else str(run.lane)
    left, speed = run.seconds_left, run.tokens_per_second
    cells: list[str | ProgressBar] = [run.name]
    cells += [f"{lane} ×{devices}" if devices else lane] if wide else []
    cells += [run.phase]
    cells += [ProgressBar(1.0, run.done_share, width=14)] if wide else []
    cells += [f"{run.status.step}/{run.steps}", format_loss(run.status.loss)]
    cells += [f"{format_signed(run.delta.mean)} @{run.delta.step}" if run.delta else MISSING]
    cells += [format_count(round(speed)) if speed else MISSING] if wide else []
    cells += [format_clock(left) if left is not None else MISSING]
    return [cell if isinstance(cell, ProgressBar) else Text(plain_text(cell)) for cell in cells]


def _input_share(run: RunProgress) -> str:
    """Share of its training time."""
    share = run.status.input_share
    return MISSING if share is None else f"{share:.1%}"


def _failure_line(run: RunProgress) -> Text:
    text = f"{run.name}: {run.status.state.value} at step {run.status.step}"
    line = Text(plain_text(text), style="red")
    return line.append(f" ({plain_text(run.status.message)})" if run.status.message else "")


def _more_line(count: int, description: str) -> Text:
    return Text(f"and {count} more {description}" if count > 0 else "", style="dim")


def _queue_lines(progress: SweepProgress) -> list[Text]:
    """Queue, looks and ends, a line each."""
    names = ", ".join(run.name for run in progress.queue[:MAX_NAMED])
    remainder = f", and {len(progress.queue) - MAX_NAMED} more" if len(progress.queue) > MAX_NAMED else ""
    lines = [f"queue: {names}{remainder}"] if progress.queue else []
    lines += (
        [f"at a look, until their scale is decided: {len(progress.waiting_at_look)}"]
        if progress.waiting_at_look
        else []
    )
    lines += [f"ended: {len(progress.ended)} of {len(progress.runs)}"]
    return [Text(plain_text(line)) for line in lines]


def _utilisation_line(used: Utilisation | None) -> Text:
    return Text("; ".join(utilisation.describe_utilisation(used)) if used else "", style="dim")


def _delta_legend(progress: SweepProgress, runs: Sequence[RunProgress]) -> Text:
    if not any(run.delta for run in runs):
        return Text("")
    control, basis = (
        plain_text(progress.control),
        f"the last {DELTA_STEPS} steps that both have on disk",
    )
    text = f"Δ {control}: loss minus that of {control}, mean over {basis} (written at checkpoints)"
    return Text(text, style="dim")


def _idle_hint(progress: SweepProgress) -> Text:
    """Why nothing moves, where nothing does."""
    if not progress.is_over or len(progress.ended) == len(progress.runs):
        return Text("")
    return Text("nobody trains here now; the sweep's command continues what is unfinished", style="yellow")
