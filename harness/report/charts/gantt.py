"""The fleet over time: a row a lane, a bar a phase, as coarse as a page for a thousand runs needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import altair as alt
import polars as pl

from harness.records.run.timeline import BEGIN, TRAIN, Span
from harness.records.run.utilisation import sessions, utilisation, utilised
from harness.report.charts.marks import MARGIN, WIDTH, inline
from harness.report.frames.sweep_frames import Frames

ROWS, BARS, FEWEST = 40, 3000, 60
"""Lanes that are drawn; bars of them all, above which bars of a row are joined; of each row at least."""
PHASES = (BEGIN, TRAIN, "compile", "evaluate", "save", "load", "branch")
"""In the order of the theme's colours, of which the first is grey."""
UNITS = ((3 * 3600.0, 3600.0, "hours"), (300.0, 60.0, "minutes"), (0.0, 1.0, "seconds"))
"""From so many seconds on: what a unit holds, and its name."""
LETTER = 5.4
"""Pixels."""
STEP, BAR = 28, 12
"""Pixels of a row, and of its bar."""


@dataclass(frozen=True)
class Bar:
    """Seconds since the sweep began, pauses left out."""

    run: str
    phase: str
    start: float
    end: float
    devices: int


def gantt(content: Frames) -> alt.LayerChart | None:
    """None where no run has a timeline."""
    used = utilisation([*content.lanes.values()])
    if used is None:
        return None
    rows = in_rows(content.lanes)
    unit, name = next((unit, name) for least, unit, name in UNITS if used.seconds >= least)
    said, *more = utilised(used)
    if len(rows) > ROWS:
        more.append(f"{len(rows) - ROWS} of {len(rows)} lanes are not drawn")
    chart = _chart(_table(rows[:ROWS], used.seconds, unit), name)
    return chart.properties(title=alt.TitleParams(said, subtitle=more, offset=8))


def in_rows(lanes: Mapping[str, Sequence[Span]]) -> list[list[Bar]]:
    """Bars of runs that followed each other, in as few rows as there were lanes at a time.

    A run that is taken up again goes on in its row where that is free, else in the first free one.
    """
    rows: list[list[Bar]] = []
    for stint in sorted(_stints(lanes), key=lambda stint: (stint[0].start, stint[0].run)):
        free = [row for row in rows if row[-1].end <= stint[0].start + 1e-6]
        mine = [row for row in free if row[-1].run == stint[0].run]
        if found := [*mine, *free]:
            found[0].extend(stint)
        else:
            rows.append([*stint])
    return rows


def _stints(lanes: Mapping[str, Sequence[Span]]) -> Iterable[list[Bar]]:
    """The attempts of each run."""
    driven = sessions([span for lane in lanes.values() for span in lane])
    for run, lane in lanes.items():
        for _, attempt in groupby(lane, key=lambda span: span.attempt):
            yield [
                Bar(run, span.phase, _since(driven, span.start), _since(driven, span.end), span.width)
                for span in attempt
            ]


def _since(driven: Sequence[tuple[float, float]], moment: float) -> float:
    """Seconds from the sweep's start to a moment, without the pauses in between."""
    return sum(min(end, moment) - start for start, end in driven if start < moment)


def coarse(row: Sequence[Bar], bars: int, seconds: float) -> list[Bar]:
    """At most about so many bars: each moment has the run and phase that fill most of it."""
    if len(row) <= bars:
        return [*row]
    size = seconds / bars
    held: dict[int, dict[Bar, float]] = {}
    for bar in row:
        kind = replace(bar, start=0.0, end=0.0)
        for moment in range(int(bar.start / size), min(bars - 1, int(bar.end / size)) + 1):
            filled = min(bar.end, (moment + 1) * size) - max(bar.start, moment * size)
            kinds = held.setdefault(moment, {})
            kinds[kind] = kinds.get(kind, 0.0) + filled
    joined: list[Bar] = []
    for moment, kinds in sorted(held.items()):
        kind = max(kinds, key=lambda kind: kinds[kind])
        here = replace(kind, start=moment * size, end=(moment + 1) * size)
        last = joined[-1] if joined else None
        if last and replace(last, start=0.0, end=0.0) == kind and abs(last.end - here.start) < size / 2:
            joined[-1] = replace(last, end=here.end)
        else:
            joined.append(here)
    return joined


def _table(rows: Sequence[Sequence[Bar]], seconds: float, unit: float) -> pl.DataFrame:
    """kind (bar | run), lane, label, phase, start, end (in units), devices."""
    most = max(FEWEST, BARS // len(rows))
    records = []
    for lane, row in enumerate(rows, start=1):
        for bar in coarse(row, most, seconds):
            records.append(("bar", lane, bar.run, bar.phase, bar.start / unit, bar.end / unit, bar.devices))
        for run, bars in groupby(row, key=lambda bar: bar.run):
            every = [*bars]
            start, end = every[0].start, every[-1].end
            if LETTER * len(run) <= (end - start) / seconds * (WIDTH - MARGIN):
                records.append(("run", lane, run, "", start / unit, end / unit, every[0].devices))
    names = ("kind", "lane", "label", "phase", "start", "end", "devices")
    return pl.DataFrame(records, schema=[*names], orient="row")


def _chart(table: pl.DataFrame, unit: str) -> alt.LayerChart:
    seen = table.filter(pl.col("kind") == "bar")["phase"].unique(maintain_order=True).to_list()
    phases = [*PHASES, *(phase for phase in seen if phase not in PHASES)]
    x = alt.X("start:Q").scale(nice=False, zero=True)
    base = alt.Chart().encode(
        x=x.axis(title=f"{unit} since the sweep began", grid=False, tickCount=8),
        y=alt.Y("lane:O").axis(title="lane"),
    )
    color = alt.Color("phase:N").scale(domain=phases).legend(values=[name for name in phases if name in seen])
    told = [alt.Tooltip("label:N", title="run"), alt.Tooltip("phase:N"), alt.Tooltip("devices:Q")]
    told += [alt.Tooltip(f"{end}:Q", title=f"{end} ({unit})", format=".4~g") for end in ("start", "end")]
    bars = base.mark_bar(height=BAR).encode(x2="end:Q", color=color, tooltip=told)
    names = base.mark_text(align="left", baseline="bottom", dy=-BAR / 2 - 1, fontSize=9.5)
    layers = [bars.transform_filter(alt.datum.kind == "bar")]
    if "run" in table["kind"]:
        layers.append(names.encode(text="label:N").transform_filter(alt.datum.kind == "run"))
    chart = alt.LayerChart(layer=layers, data=inline(table))
    return chart.properties(width=WIDTH - MARGIN, height=alt.Step(STEP))
