"""Bars of a Gantt chart: phases of runs on as few lanes as there were, merged in sweeps of many runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from harness.records.run.timeline import BEGIN, TRAIN, PhaseSpan
from harness.records.run.utilisation import active_sessions

MAX_ROWS, MAX_BARS, MIN_BARS_PER_ROW = 40, 3000, 60
"""Limits: lanes that are drawn, bars in all (bars of a row are merged above it), bars of a row at least."""
PHASES = (BEGIN, TRAIN, "compile", "evaluate", "save", "load", "branch")
"""Phases in the order of the theme's colours of parts; the first colour is grey."""
UNITS = ((3 * 3600.0, 3600.0, "hours"), (300.0, 60.0, "minutes"), (0.0, 1.0, "seconds"))
"""Units of time: seconds of the sweep from which a unit is used, seconds per unit, name."""


@dataclass(frozen=True)
class PhaseBar:
    """Phase of a run, from `start` to `end` in seconds since the sweep began, without pauses."""

    run: str
    phase: str
    start: float
    end: float
    devices: int


def time_unit(seconds: float) -> tuple[float, str]:
    """Return the seconds of a unit of time for an axis of this length, and the name of the unit."""
    return next((unit, name) for threshold, unit, name in UNITS if seconds >= threshold)


def lanes_left_out(rows: Sequence[Sequence[PhaseBar]]) -> list[str]:
    """Return a line that says how many lanes are not drawn; empty if all are."""
    count = len(rows) - MAX_ROWS
    return [f"{count} of {len(rows)} lanes are not drawn"] if count > 0 else []


def drawn_rows(rows: Sequence[Sequence[PhaseBar]], seconds: float) -> list[list[PhaseBar]]:
    """Return the rows that are drawn, each merged to so many bars that a chart of them stays small."""
    limit = max(MIN_BARS_PER_ROW, MAX_BARS // max(1, min(len(rows), MAX_ROWS)))
    return [merge_bars(row, limit, seconds) for row in rows[:MAX_ROWS]]


def pack_rows(lanes: Mapping[str, Sequence[PhaseSpan]]) -> list[list[PhaseBar]]:
    """Pack the attempts of all runs into as few rows as there were lanes at a time.

    A resumed run continues in its row if that is free, otherwise in the first free one.
    """
    rows: list[list[PhaseBar]] = []
    for attempt in sorted(_attempt_bars(lanes), key=lambda attempt: (attempt[0].start, attempt[0].run)):
        free = [row for row in rows if row[-1].end <= attempt[0].start + 1e-6]
        own_rows = [row for row in free if row[-1].run == attempt[0].run]
        if candidates := [*own_rows, *free]:
            candidates[0].extend(attempt)
        else:
            rows.append([*attempt])
    return rows


def _attempt_bars(lanes: Mapping[str, Sequence[PhaseSpan]]) -> Iterable[list[PhaseBar]]:
    """Yield the bars of each attempt of each run."""
    sessions = active_sessions([span for lane in lanes.values() for span in lane])
    for run, lane in lanes.items():
        for _, attempt in groupby(lane, key=lambda span: span.attempt):
            bars = []
            for span in attempt:
                start, end = (_active_seconds(sessions, moment) for moment in (span.start, span.end))
                bars.append(PhaseBar(run, span.phase, start, end, span.width))
            yield bars


def _active_seconds(sessions: Sequence[tuple[float, float]], moment: float) -> float:
    """Return the seconds from the sweep's start to a moment, without the pauses between sessions."""
    return sum(min(end, moment) - start for start, end in sessions if start < moment)


def merge_bars(row: Sequence[PhaseBar], bars: int, seconds: float) -> list[PhaseBar]:
    """Merge a row into about `bars` bars: each cell of time shows the run and phase that fill most of it."""
    if len(row) <= bars:
        return [*row]
    size = seconds / bars
    seconds_by_cell: dict[int, dict[PhaseBar, float]] = {}
    for bar in row:
        kind = replace(bar, start=0.0, end=0.0)
        for moment in range(int(bar.start / size), min(bars - 1, int(bar.end / size)) + 1):
            covered = min(bar.end, (moment + 1) * size) - max(bar.start, moment * size)
            kinds = seconds_by_cell.setdefault(moment, {})
            kinds[kind] = kinds.get(kind, 0.0) + covered
    joined: list[PhaseBar] = []
    for moment, kinds in sorted(seconds_by_cell.items()):
        kind = max(kinds, key=lambda kind: kinds[kind])
        bar_of_cell = replace(kind, start=moment * size, end=(moment + 1) * size)
        last = joined[-1] if joined else None
        touches = last and abs(last.end - bar_of_cell.start) < size / 2
        if last and touches and replace(last, start=0.0, end=0.0) == kind:
            joined[-1] = replace(last, end=bar_of_cell.end)
        else:
            joined.append(bar_of_cell)
    return joined
