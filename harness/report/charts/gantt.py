"""Gantt chart of a sweep: one row per lane, one bar per phase, merged in sweeps of many runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import altair as alt
import polars as pl

from harness.records.run.timeline import BEGIN, TRAIN, PhaseSpan, unreadable_lines
from harness.records.run.utilisation import (
    active_sessions,
    describe_utilisation,
    machine_cores,
    utilisation,
)
from harness.report.charts.marks import MARGIN, WIDTH, inline_csv
from harness.report.charts.theme import PARTS
from harness.report.frames.sweep_frames import Frames

MAX_ROWS, MAX_BARS, MIN_BARS_PER_ROW = 40, 3000, 60
"""Limits: lanes that are drawn, bars in all (bars of a row are merged above it), bars of a row at least."""
PHASES = (BEGIN, TRAIN, "compile", "evaluate", "save", "load", "branch")
"""Phases in the order of the theme's colours of parts; the first colour is grey."""
UNITS = ((3 * 3600.0, 3600.0, "hours"), (300.0, 60.0, "minutes"), (0.0, 1.0, "seconds"))
"""Units of time: seconds of the sweep from which a unit is used, seconds per unit, name."""
LETTER_WIDTH = 5.4
"""Pixels of a letter."""
ROW_HEIGHT, BAR_HEIGHT = 28, 12
"""Pixels of a row, and of its bar."""


@dataclass(frozen=True)
class PhaseBar:
    """Phase of a run, from `start` to `end` in seconds since the sweep began, without pauses."""

    run: str
    phase: str
    start: float
    end: float
    devices: int


def gantt(content: Frames) -> alt.LayerChart | None:
    """Draw the lanes of all runs. Returns None if no run has a timeline."""
    cores = machine_cores(content.sweep) if content.sweep else None
    used = utilisation([*content.lanes.values()], cores=cores)
    if used is None:
        return None
    rows = pack_rows(content.lanes)
    unit, name = next((unit, name) for threshold, unit, name in UNITS if used.seconds >= threshold)
    title, *subtitle = describe_utilisation(used, sum(unreadable_lines(run.path) for run in content.runs))
    if len(rows) > MAX_ROWS:
        subtitle.append(f"{len(rows) - MAX_ROWS} of {len(rows)} lanes are not drawn")
    chart = _chart(_bar_table(rows[:MAX_ROWS], used.seconds, unit), name)
    return chart.properties(title=alt.TitleParams(title, subtitle=subtitle, offset=8))


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


def _bar_table(rows: Sequence[Sequence[PhaseBar]], seconds: float, unit: float) -> pl.DataFrame:
    """Build the columns kind (bar | run), lane, label, phase, start, end (in units of time), devices."""
    limit = max(MIN_BARS_PER_ROW, MAX_BARS // len(rows))
    records = []
    for lane, row in enumerate(rows, start=1):
        for bar in merge_bars(row, limit, seconds):
            records.append(("bar", lane, bar.run, bar.phase, bar.start / unit, bar.end / unit, bar.devices))
        for run, bars in groupby(row, key=lambda bar: bar.run):
            bars_of_run = [*bars]
            start, end = bars_of_run[0].start, bars_of_run[-1].end
            if LETTER_WIDTH * len(run) <= (end - start) / seconds * (WIDTH - MARGIN):
                records.append(("run", lane, run, "", start / unit, end / unit, bars_of_run[0].devices))
    names = ("kind", "lane", "label", "phase", "start", "end", "devices")
    return pl.DataFrame(records, schema=[*names], orient="row")


def _chart(table: pl.DataFrame, unit: str) -> alt.LayerChart:
    present = table.filter(pl.col("kind") == "bar")["phase"].unique(maintain_order=True).to_list()
    phases = [*PHASES, *(phase for phase in present if phase not in PHASES)]
    x = alt.X("start:Q").scale(nice=False, zero=True)
    base = alt.Chart().encode(
        x=x.axis(title=f"{unit} since the sweep began", grid=False, tickCount=8),
        y=alt.Y("lane:O").axis(title="lane"),
    )
    legend = [name for name in phases if name in present]
    color = alt.Color("phase:N").scale(domain=phases, range=PARTS).legend(values=legend)
    tooltips = [alt.Tooltip("label:N", title="run"), alt.Tooltip("phase:N"), alt.Tooltip("devices:Q")]
    tooltips += [alt.Tooltip(f"{end}:Q", title=f"{end} ({unit})", format=".4~g") for end in ("start", "end")]
    bars = base.mark_bar(height=BAR_HEIGHT).encode(x2="end:Q", color=color, tooltip=tooltips)
    names = base.mark_text(align="left", baseline="bottom", dy=-BAR_HEIGHT / 2 - 1, fontSize=9.5)
    layers = [bars.transform_filter(alt.datum.kind == "bar")]
    if "run" in table["kind"]:
        layers.append(names.encode(text="label:N").transform_filter(alt.datum.kind == "run"))
    chart = alt.LayerChart(layer=layers, data=inline_csv(table))
    return chart.properties(width=WIDTH - MARGIN, height=alt.Step(ROW_HEIGHT))
