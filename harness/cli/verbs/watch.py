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

from harness.cli.verb_parser import Options
from harness.core import number_format
from harness.records.run import utilisation
from harness.records.run.utilisation import Utilisation
from harness.records.sweep.find_sweep import find_sweep, read_sweep
from harness.report.frames.sweep_progress import TAIL, Fleet, Standing, Watcher
from harness.report.tables.terminal import NARROW, WIDE

REFRESH_SECONDS, LOAD = 1.0, 0.1
"""Between two pictures at least; share of a core that watching may take from what is watched."""
FEWEST = 5
"""Lines of each kind that are shown however low the screen is."""
LONGEST_BAR = 100
NAMED = 4
"""Runs of the queue that are named."""


def watch_command(arguments: Sequence[str]) -> int:
    """Live until the sweep is over, q or Ctrl-C; one frame where the output is no terminal."""
    parser = Options("harness watch", add_help=False)
    parser.add_argument("sweep", metavar="SWEEP")
    parser.add_argument("--once", action="store_true")
    options = parser.parse_args(arguments)
    console = Console()
    if options.once or not console.is_terminal:
        console.print(frame(Watcher(read_sweep(options.sweep)).look(time.time()), console.width, None))
        return 0
    watcher = Watcher(find_sweep(options.sweep))
    with contextlib.suppress(KeyboardInterrupt), _keys() as pressed, _live(console) as live:
        while True:
            began, fleet = time.process_time(), watcher.look(time.time())
            live.update(frame(fleet, console.width, console.height), refresh=True)
            pause = max(REFRESH_SECONDS, (time.process_time() - began) / LOAD)
            if fleet.over or pressed(pause) == "q":
                break
    return 0


def _live(console: Console) -> Live:
    return Live(console=console, auto_refresh=False)


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
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


def frame(fleet: Fleet, width: int, height: int | None) -> Group:
    """One picture of the fleet, for a screen of so many columns, and rows if they are bounded."""
    lines = max(FEWEST, height - 14 - min(FEWEST, len(fleet.failures))) if height else len(fleet.runs)
    shown, failures = fleet.at_work[:lines], fleet.failures[: FEWEST if height else None]
    parts = [_whole(fleet), _line(ProgressBar(1.0, fleet.share, width=min(width, LONGEST_BAR)))]
    if shown:
        parts += [_table(shown, fleet.control, width), _line("")]
    parts += [_more(len(fleet.at_work) - len(shown), "at work"), *map(_failure, failures)]
    parts += [_more(len(fleet.failures) - len(failures), "with a failure"), *_others(fleet)]
    parts += [_used(fleet.utilisation), _compared(fleet, shown), _leaving(fleet)]
    return Group(*[part for part in parts if not isinstance(part, Text) or part])


def _line(content: ProgressBar | str) -> Table:
    """A line of its own, which a bar is not by itself."""
    grid = Table.grid()
    grid.add_row(content)
    return grid


def _whole(fleet: Fleet) -> Text:
    left = fleet.seconds_left
    speed = sum(run.tokens_per_second or 0.0 for run in fleet.at_work)
    said = [f"{len(fleet.runs)} runs", f"{fleet.share:.0%} done"]
    said += [f"{number_format.count(round(speed))} tokens/s"] if speed else []
    said += [f"{number_format.clock(left)} left"] if left is not None else []
    return Text(number_format.plain_text(fleet.name), style="bold").append(
        f": {', '.join(said)}", style="default"
    )


def _table(shown: Sequence[Standing], control: str, width: int) -> Table:
    """The runs at work; the bar, the lane and the speed only where there is room, then what of its time each
    waits for input."""
    wide = width >= NARROW
    table = Table(box=None, padding=(0, 1), header_style="dim", pad_edge=False)
    table.add_column("run", no_wrap=True, overflow="ellipsis")
    names = ["lane", "phase", "", "step", "loss", f"Δ {control}" if control else "Δ", "tokens/s", "left"]
    names += ["input"] if width >= WIDE else []
    for name in [name for name in names if wide or name not in ("lane", "", "tokens/s")]:
        side = "left" if name in ("phase", "") else "right"
        table.add_column(Text(number_format.plain_text(name)), justify=side, no_wrap=True)
    for run in shown:
        table.add_row(*_row(run, wide=wide), *([_waited(run)] if width >= WIDE else []))
    return table


def _row(run: Standing, *, wide: bool) -> list[Text | ProgressBar]:
    devices = run.timeline[-1].width if run.timeline else None
    lane = number_format.NONE if run.lane is None else str(run.lane)
    left, speed = run.seconds_left, run.tokens_per_second
    cells: list[str | ProgressBar] = [run.name]
    cells += [f"{lane} ×{devices}" if devices else lane] if wide else []
    cells += [run.phase]
    cells += [ProgressBar(1.0, run.done, width=14)] if wide else []
    cells += [f"{run.status.step}/{run.steps}", number_format.loss(run.status.loss)]
    cells += [
        f"{number_format.signed(run.delta.mean)} @{run.delta.step}" if run.delta else number_format.NONE
    ]
    cells += [number_format.count(round(speed)) if speed else number_format.NONE] if wide else []
    cells += [number_format.clock(left) if left is not None else number_format.NONE]
    return [cell if isinstance(cell, ProgressBar) else Text(number_format.plain_text(cell)) for cell in cells]


def _waited(run: Standing) -> str:
    """Share of its training time."""
    share = run.status.input_share
    return number_format.NONE if share is None else f"{share:.1%}"


def _failure(run: Standing) -> Text:
    text = f"{run.name}: {run.status.state.value} at step {run.status.step}"
    line = Text(number_format.plain_text(text), style="red")
    return line.append(f" ({number_format.plain_text(run.status.message)})" if run.status.message else "")


def _more(count: int, what: str) -> Text:
    return Text(f"and {count} more {what}" if count > 0 else "", style="dim")


def _others(fleet: Fleet) -> list[Text]:
    """Queue, looks and ends, a line each."""
    named = ", ".join(run.name for run in fleet.queue[:NAMED])
    more = f", and {len(fleet.queue) - NAMED} more" if len(fleet.queue) > NAMED else ""
    lines = [f"queue: {named}{more}"] if fleet.queue else []
    lines += [f"at a look, until their scale is decided: {len(fleet.at_look)}"] if fleet.at_look else []
    lines += [f"ended: {len(fleet.ended)} of {len(fleet.runs)}"]
    return [Text(number_format.plain_text(line)) for line in lines]


def _used(used: Utilisation | None) -> Text:
    return Text("; ".join(utilisation.utilised(used)) if used else "", style="dim")


def _compared(fleet: Fleet, shown: Sequence[Standing]) -> Text:
    if not any(run.delta for run in shown):
        return Text("")
    control, basis = number_format.plain_text(fleet.control), f"the last {TAIL} steps that both have on disk"
    told = f"Δ {control}: loss minus that of {control}, mean over {basis} (written at checkpoints)"
    return Text(told, style="dim")


def _leaving(fleet: Fleet) -> Text:
    """Why nothing moves, where nothing does."""
    if not fleet.over or len(fleet.ended) == len(fleet.runs):
        return Text("")
    return Text("nobody trains here now; the sweep's command continues what is unfinished", style="yellow")
