"""Gantt chart of a sweep: one row per lane, one bar per phase, merged in sweeps of many runs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import altair as alt
import polars as pl

from harness.records.run.timeline import unreadable_lines
from harness.records.run.utilisation import describe_utilisation, machine_cores, utilisation
from harness.report.charts.marks import MARGIN, WIDTH, inline_csv
from harness.report.charts.theme import PARTS
from harness.report.frames.lane_bars import (
    PHASES,
    PhaseBar,
    drawn_rows,
    lanes_left_out,
    pack_rows,
    time_unit,
)
from harness.report.frames.sweep_frames import Frames

LETTER_WIDTH = 5.4
"""Pixels of a letter."""
ROW_HEIGHT, BAR_HEIGHT = 28, 12
"""Pixels of a row, and of its bar."""


def gantt(content: Frames) -> alt.LayerChart | None:
    """Draw the lanes of all runs. Returns None if no run has a timeline."""
    cores = machine_cores(content.sweep) if content.sweep else None
    used = utilisation([*content.lanes.values()], cores=cores)
    if used is None:
        return None
    rows = pack_rows(content.lanes)
    unit, name = time_unit(used.seconds)
    title, *subtitle = describe_utilisation(used, sum(unreadable_lines(run.path) for run in content.runs))
    subtitle += lanes_left_out(rows)
    chart = _chart(_bar_table(rows, used.seconds, unit), name)
    return chart.properties(title=alt.TitleParams(title, subtitle=subtitle, offset=8))


def _bar_table(rows: Sequence[Sequence[PhaseBar]], seconds: float, unit: float) -> pl.DataFrame:
    """Build the columns kind (bar | run), lane, label, phase, start, end (in units of time), devices."""
    records = []
    for lane, (row, bars) in enumerate(zip(rows, drawn_rows(rows, seconds), strict=False), start=1):
        for bar in bars:
            records.append(("bar", lane, bar.run, bar.phase, bar.start / unit, bar.end / unit, bar.devices))
        for run, group in groupby(row, key=lambda bar: bar.run):
            bars_of_run = [*group]
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
