"""A plan as bars in the terminal: a row a lane, time from left to right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "red")
ROWS = 40
"""Lanes that are drawn; more than fit on a screen tell nothing."""


@dataclass(frozen=True)
class GanttBar:
    row: str
    name: str
    group: str
    """Bars of one group have one colour."""
    start: float
    end: float


def print_gantt(bars: Sequence[GanttBar], ends: str, console: Console) -> None:
    """Rows in order of appearance. `ends`: the time at the right edge, in words."""
    if not bars:
        return
    rows = list(dict.fromkeys(bar.row for bar in bars))
    groups = list(dict.fromkeys(bar.group for bar in bars))
    margin = max(len(row) for row in rows[:ROWS]) + 2
    columns = max(20, console.width - margin - 1)
    length = max(bar.end for bar in bars)
    for row in rows[:ROWS]:
        line = Text(f" {row}".ljust(margin))
        row_bars = sorted((bar for bar in bars if bar.row == row), key=lambda bar: bar.start)
        console.print(line.append_text(_bar_line(row_bars, groups, columns, length)), soft_wrap=True)
    console.print(Text(" " * margin + "0" + ends.rjust(columns - 1), style="dim"), soft_wrap=True)
    if len(rows) > ROWS:
        console.print(Text(f" {len(rows) - ROWS} more lanes are not drawn"))


def _bar_line(bars: Sequence[GanttBar], groups: Sequence[str], columns: int, length: float) -> Text:
    """Each bar at least one column, its name inside where it has room, its edges told apart by a line."""
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
