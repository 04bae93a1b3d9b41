"""Frame of `harness watch`: running runs, failures, queue and utilisation of a sweep at one moment."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table as RichTable
from rich.text import Text

from harness.core.number_format import (
    MISSING,
    format_clock,
    format_count,
    format_loss,
    format_signed,
    plain_text,
)
from harness.records.run.utilisation import describe_utilisation
from harness.report.frames.sweep_progress import DELTA_STEPS, RunProgress, SweepProgress
from harness.report.tables.fit_width import table_lines
from harness.report.tables.text_table import Table, drop_columns, make_table

MIN_LINES, MAX_NAMED = 5, 4
"""Numbers of lines of each kind that are shown even on a low screen, and of queued runs that are named."""
LONGEST_BAR, BAR_OF_RUN = 100, 14
"""Widths in columns of the sweep's progress bar, at most, and of a run's."""


def draw_frame(progress: SweepProgress, width: int | None, height: int | None) -> Group:
    """Draw one frame for a screen of `width` columns and `height` rows (None: as many as needed)."""
    table, lines = _run_table(progress.running, progress.control), len(progress.runs)
    if height:
        lines_of_run = max(1, len(table_lines(table, width)) // max(1, len(table.rows)))
        lines = max(MIN_LINES, (height - 14 - min(MIN_LINES, len(progress.failures))) // lines_of_run)
    running, failures = progress.running[:lines], progress.failures[: MIN_LINES if height else None]
    bar = ProgressBar(1.0, progress.done_share, width=min(width or LONGEST_BAR, LONGEST_BAR))
    parts = [_summary_line(progress), _own_line(bar)]
    if running:
        rows = Table(table.columns, table.rows[:lines])
        parts += [Group(*table_lines(rows, width)), *_activity_lines(running[:lines]), _own_line("")]
    parts += [_more_line(len(progress.running) - len(running), "running"), *map(_failure_line, failures)]
    parts += [_more_line(len(progress.failures) - len(failures), "with a failure"), *_queue_lines(progress)]
    used = progress.utilisation
    words = describe_utilisation(used, progress.unreadable_lines) if used else []
    parts += [Text("; ".join(words), style="dim")]
    parts += [_delta_legend(progress, running), _unreadable_line(progress), _idle_hint(progress)]
    return Group(*[part for part in parts if not isinstance(part, Text) or part])


def _own_line(content: ProgressBar | str) -> RichTable:
    """Put the content on a line of its own, which a bar alone does not do."""
    grid = RichTable.grid()
    grid.add_row(content)
    return grid


def _summary_line(progress: SweepProgress) -> Text:
    left = progress.left
    speed = sum(run.tokens_per_second or 0.0 for run in progress.running)
    parts = [f"{len(progress.runs)} runs", f"{progress.done_share:.0%} done"]
    parts += [f"{format_count(round(speed))} tokens/s"] if speed else []
    parts += [left.text] if left is not None else []
    return Text(plain_text(progress.name), style="bold").append(f": {', '.join(parts)}", style="default")


def _run_table(runs: Sequence[RunProgress], control: str) -> Table:
    """Build the table of running runs, with the share of training time spent waiting for input if known."""
    delta = plain_text(f"Δ {control}")
    columns = ("run", "lane", "phase", "", "step", "loss", delta, "tokens/s", "left", "input")
    content = make_table(columns, map(_run_row, runs))
    is_measured = any(run.status.input_share is not None for run in runs)
    return content if is_measured else drop_columns(content, ("input",))


def _run_row(run: RunProgress) -> tuple[str, ...]:
    devices = run.timeline[-1].width if run.timeline else None
    lane = MISSING if run.lane is None else str(run.lane)
    left, speed, share = run.seconds_left, run.tokens_per_second, run.status.input_share
    return (
        run.name, f"{lane} ×{devices}" if devices else lane, run.phase,
        "━" * round(BAR_OF_RUN * run.done_share), f"{run.status.step}/{run.steps}",
        format_loss(run.status.loss),
        f"{format_signed(run.delta.mean)} @{run.delta.step}" if run.delta else MISSING,
        format_count(round(speed)) if speed else MISSING,
        format_clock(left) if left is not None else MISSING,
        MISSING if share is None else f"{share:.1%}",
    )  # fmt: skip


def _activity_lines(runs: Sequence[RunProgress]) -> list[Text]:
    """Build a line for each run in a long phase, with what it does and how far it is."""
    named = [run for run in runs if run.status.activity][:MAX_NAMED]
    return [Text(plain_text(f"{run.name}: {run.status.activity}"), style="dim") for run in named]


def _failure_line(run: RunProgress) -> Text:
    text = f"{run.name}: {run.status.state.value} at step {run.status.step}"
    line = Text(plain_text(text), style="red")
    return line.append(f" ({plain_text(run.status.message)})" if run.status.message else "")


def _more_line(count: int, description: str) -> Text:
    return Text(f"and {count} more {description}" if count > 0 else "", style="dim")


def _queue_lines(progress: SweepProgress) -> list[Text]:
    """Build one line each for queued runs, runs at an interim look, and ended runs."""
    names = ", ".join(run.name for run in progress.queue[:MAX_NAMED])
    remainder = f", and {len(progress.queue) - MAX_NAMED} more" if len(progress.queue) > MAX_NAMED else ""
    lines = [f"queue: {names}{remainder}"] if progress.queue else []
    if waiting := len(progress.waiting_at_look):
        lines.append(f"at an interim look, waiting for the decision at their scale: {waiting}")
    lines += [f"ended: {len(progress.ended)} of {len(progress.runs)}"]
    return [Text(plain_text(line)) for line in lines]


def _delta_legend(progress: SweepProgress, runs: Sequence[RunProgress]) -> Text:
    if not any(run.delta for run in runs):
        return Text("")
    control, steps = plain_text(progress.control), f"the last {DELTA_STEPS} steps that both have on disk"
    text = f"Δ {control}: loss minus that of {control}, mean over {steps} (written at checkpoints)"
    return Text(text, style="dim")


def _unreadable_line(progress: SweepProgress) -> Text:
    """Name the records that cannot be read: their runs are missing above, or shown as not begun."""
    names = [*progress.unreadable[:MAX_NAMED]]
    more = len(progress.unreadable) - len(names)
    listed = ", ".join(names) + (f" and {more} more" if more else "")
    return Text(plain_text(f"damaged, so not shown as they are: {listed}") if names else "", style="red")


def _idle_hint(progress: SweepProgress) -> Text:
    """Say how to continue if no process is training and runs are unfinished."""
    if not progress.is_over or len(progress.ended) == len(progress.runs):
        return Text("")
    text = "No process trains these runs now. The sweep command continues unfinished runs."
    return Text(text, style="yellow")
