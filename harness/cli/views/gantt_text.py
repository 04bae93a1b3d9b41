"""Gantt chart in the terminal: one row per lane, time from left to right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "red")
ROWS = 40
"""Number of lanes that are drawn, at most."""


@dataclass(frozen=True)
class GanttBar:
    """Bar of the chart."""

    row: str
    name: str
    group: str
    """Name of the group; bars of one group have one colour."""
    start: float
    end: float


def print_gantt(bars: Sequence[GanttBar], ends: str, console: Console) -> None:
    """Print the rows in order of appearance. `ends` is the text at the right edge of the time axis."""
    if not bars:
        return
    rows = list(dict.fromkeys(bar.row for bar in bars))
    groups = list(dict.fromkeys(bar.group for bar in bars))
    margin = max(len(row) for row in rows[:ROWS]) + 2
    columns = max(20, console.width - margin - 1)
    length = max(bar.end for bar in bars)
    has_blank_bars = False
    for row in rows[:ROWS]:
        row_bars = sorted((bar for bar in bars if bar.row == row), key=lambda bar: bar.start)
        line = _bar_line(row_bars, groups, columns, length)
        has_blank_bars = has_blank_bars or any(bar.name not in line.plain for bar in row_bars)
        console.print(Text(f" {row}".ljust(margin)).append_text(line), soft_wrap=True)
    console.print(Text(" " * margin + "0" + ends.rjust(columns - 1), style="dim"), soft_wrap=True)
    if has_blank_bars:
        console.print(Text(" Bars without a name are too short for it.", style="dim"))
    if len(rows) > ROWS:
        console.print(Text(f" {len(rows) - ROWS} more lanes are not drawn"))


def _bar_line(bars: Sequence[GanttBar], groups: Sequence[str], columns: int, length: float) -> Text:
    """Draw the bars of a row: each at least one column wide, with its name inside if there is room."""
    line = Text()
    for bar in bars:
        if (start := max(len(line), round(columns * bar.start / length))) >= columns:
            break
        end = min(columns, max(start + 1, round(columns * bar.end / length)))
        line.append(" " * (start - len(line)))
        room = end - start - 1
        text = "▏" + (bar.name if len(bar.name) <= room else "").ljust(room)
        line.append(text[: end - start], style=f"black on {COLOURS[groups.index(bar.group) % len(COLOURS)]}")
    return line
