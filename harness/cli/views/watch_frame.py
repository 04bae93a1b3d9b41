"""Frame of `harness watch`: running runs, failures, queue and utilisation of a sweep at one moment."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table as RichTable
from rich.text import Text

from harness.core.number_format import plain_text
from harness.records.run.utilisation import describe_utilisation
from harness.report.frames.sweep_progress import RunProgress, SweepProgress
from harness.report.tables.fit_width import table_lines
from harness.report.tables.progress_tables import (
    MAX_NAMED,
    damage_text,
    delta_legend,
    failure_text,
    idle_text,
    queue_lines,
    running_table,
    summary_text,
)
from harness.report.tables.text_table import Table

MIN_LINES = 5
"""Number of lines of each kind that are shown even on a low screen."""
LONGEST_BAR = 100
"""Width in columns of the sweep's progress bar, at most."""


def draw_frame(progress: SweepProgress, width: int | None, height: int | None) -> Group:
    """Draw one frame for a screen of `width` columns and `height` rows (None: as many as needed)."""
    table, lines = running_table(progress.running, progress.control), len(progress.runs)
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
    parts += [
        _more_line(len(progress.failures) - len(failures), "with a failure"),
        *map(Text, queue_lines(progress)),
    ]
    used = progress.utilisation
    words = describe_utilisation(used, progress.unreadable_lines) if used else []
    parts += [Text("; ".join(words), style="dim")]
    parts += [Text(delta_legend(progress, running), style="dim"), Text(damage_text(progress), style="red")]
    parts += [Text(idle_text(progress), style="yellow")]
    return Group(*[part for part in parts if not isinstance(part, Text) or part])


def _own_line(content: ProgressBar | str) -> RichTable:
    """Put the content on a line of its own, which a bar alone does not do."""
    grid = RichTable.grid()
    grid.add_row(content)
    return grid


def _summary_line(progress: SweepProgress) -> Text:
    return Text(plain_text(progress.name), style="bold").append(
        f": {summary_text(progress)}", style="default"
    )


def _activity_lines(runs: Sequence[RunProgress]) -> list[Text]:
    """Build a line for each run in a long phase, with what it does and how far it is."""
    named = [run for run in runs if run.status.activity][:MAX_NAMED]
    return [Text(plain_text(f"{run.name}: {run.status.activity}"), style="dim") for run in named]


def _failure_line(run: RunProgress) -> Text:
    return Text(failure_text(run), style="red")


def _more_line(count: int, description: str) -> Text:
    return Text(f"and {count} more {description}" if count > 0 else "", style="dim")
