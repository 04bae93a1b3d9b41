"""Charts of a plan: chips by run, memory by part, and start and end of each run."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import altair as alt
import polars as pl

from harness.core import number_format
from harness.core.interval import Interval
from harness.report.charts.chip_shares import chip_shares_chart
from harness.report.charts.marks import WIDTH, inline_csv
from harness.report.charts.theme import PARTS
from harness.report.frames.saved_plan import PlanRow, SavedPlan

MEMORY_PARTS = ("weights", "optimizer", "gradients", "activations", "gathered", "logits", "copy")
"""Parts of a device's memory, in the order of the stack and of the theme's colours of parts."""
MAX_RUNS = 40
"""Number of runs that are drawn, at most."""
ROW_HEIGHT, BAR_HEIGHT, LABEL_WIDTH = 26, 13, 190
"""Pixels of a row, of its bar, and of the names beside bars."""
MAX_LIMIT_RATIO = 20
"""Ratio to the longest bar from which on a limit is not drawn but given as text."""
MAX_VERDICTS, LINE_LETTERS = 4, 150
"""Number of sentences above bars, at most, and of letters in a line of them."""
LETTER_WIDTH = 6.5
"""Pixels of a letter of the text at the right edge, at most."""


def plan_charts(plan: SavedPlan, variants: Sequence[str] = ()) -> dict[str, alt.LayerChart]:
    """Return the charts by name, without those that have no data. `variants` come first in the order of
    colours, so that a variant has the same colour in every chart of a page."""
    colours = list(dict.fromkeys([*variants, *(row.variant for row in plan.rows)]))
    if not plan.rows:
        return {}
    charts = {
        "plan_partition": chip_shares_chart(plan, colours),
        "plan_memory": memory_chart(plan),
        "plan_timeline": timeline_chart(plan, colours),
    }
    return {name: chart for name, chart in charts.items() if chart is not None}


def memory_chart(plan: SavedPlan) -> alt.LayerChart | None:
    """Draw one stacked bar per run (or group of equal runs), by part, with the limit of a plan."""
    if not any(row.memory for row in plan.rows):
        return None
    rows = [row for row in plan.rows if row.group]
    largest = max(sum(part.value for part in row.memory.values()) for row in rows)
    name, size = number_format.choose_memory_unit(largest)
    bound = max((row.memory_limit or 0.0 for row in rows), default=0.0)
    bounded = bound < MAX_LIMIT_RATIO * largest
    table = _memory_table(rows[:MAX_RUNS], size, bounded=bounded)
    chart = _memory_bars(table, name).properties(width=WIDTH - LABEL_WIDTH, height=alt.Step(ROW_HEIGHT))
    limit = number_format.format_number(bound / number_format.GIB)
    far_text = f"The limit of a plan, {limit} GiB, lies far to the right."
    limit_text = _limit_legend(rows) if bounded else far_text
    lines = [f"Numbers: the sum. Thin lines: its uncertainty. {limit_text}", *_omitted_note(rows)]
    title = alt.TitleParams(f"Memory of the fullest device, {name}", subtitle=lines, offset=8)
    return chart.properties(title=title)


def _memory_table(rows: Sequence[PlanRow], size: float, *, bounded: bool) -> pl.DataFrame:
    """Build the columns kind (part | whole | limit | chip), label, phase (part), value, low, high, text."""
    records = []
    for row in rows:
        for part, amount in row.memory.items():
            records.append(("part", row.group, part, *(end / size for end in _ends(amount)), ""))
        total = [
            sum(getattr(part, end) for part in row.memory.values()) / size for end in ("value", "low", "high")
        ]
        text = number_format.format_number(total[0]) if row.memory else "none fits"
        records.append(("whole", row.group, "", *total, text))
        for name, bound in (("limit", row.memory_limit), ("chip", row.chip_memory)):
            if bound and bounded:
                records.append((name, row.group, "", bound / size, None, None, ""))
    names = ("kind", "label", "phase", "value", "low", "high", "text")
    return pl.DataFrame(records, schema=[*names], orient="row", infer_schema_length=None)


def _memory_bars(table: pl.DataFrame, unit: str) -> alt.LayerChart:
    present = [part for part in table["phase"].unique(maintain_order=True) if part]
    parts = [*MEMORY_PARTS, *(part for part in present if part not in MEMORY_PARTS)]
    place = pl.DataFrame({"phase": parts, "place": range(len(parts))})
    table = table.join(place, on="phase", how="left", maintain_order="left")
    largest = max(table[end].max() for end in ("value", "high"))  # pyright: ignore
    x, base = alt.X("value:Q").scale(nice=False, domain=[0, _axis_end(largest, table)]), _base_chart(table)
    legend = [part for part in parts if part in present]
    color = alt.Color("phase:N").scale(domain=parts, range=PARTS).legend(values=legend)
    names = alt.Tooltip("label:N", title="run"), alt.Tooltip("phase:N", title="part")
    bars = base.mark_bar(height=BAR_HEIGHT).encode(
        x=x.axis(title=f"{unit} a device", grid=False, tickCount=8).stack("zero"),
        color=color,
        order=alt.Order("place:Q"),
        tooltip=[*names, _amount_tooltip("value", unit)],
    )
    layers = [_only_kind(bars, "part"), *_interval_and_text(base, "whole")]
    for name, thickness in (("limit", 2.5), ("chip", 1)):
        if name in table["kind"]:
            tick = base.mark_tick(style="mark", thickness=thickness, height=ROW_HEIGHT - 4, opacity=1)
            layers.append(_only_kind(tick.encode(x=x, tooltip=[_amount_tooltip("value", unit)]), name))
    return alt.LayerChart(layer=layers, data=inline_csv(table))


def _interval_and_text(base: alt.Chart, kind: str) -> list[alt.Chart]:
    """Draw the interval of each bar, and its text at the right edge."""
    whisker = base.mark_rule(style="mark", strokeWidth=1.2).encode(x=alt.X("low:Q"), x2="high:Q")
    text = base.mark_text(align="right", style="mark").encode(x=alt.XValue("width"), text="text:N")
    return [_only_kind(whisker, kind), _only_kind(text, kind)]


def _axis_end(largest: float, table: pl.DataFrame) -> float:
    """Return the end of the axis that leaves room for the text at the right edge."""
    room = LETTER_WIDTH * max(map(len, table["text"])) + 12
    return largest * (WIDTH - LABEL_WIDTH) / (WIDTH - LABEL_WIDTH - room)


def _limit_legend(rows: Sequence[PlanRow]) -> str:
    """Explain the marks of the memory limits."""
    rows = [row for row in rows if row.memory_limit and row.chip_memory]
    shares = sorted({f"{row.memory_limit / row.chip_memory:.0%}" for row in rows})  # pyright: ignore
    if not shares:
        return "The memory of a device is not known."
    return f"Thick: limit of a plan, {', '.join(shares)} of the chip's memory; beside it: all of it."


def timeline_chart(plan: SavedPlan, variants: Sequence[str]) -> alt.LayerChart | None:
    """Draw one bar per run from begin to end, with the interval of the end. Returns None if no run ends."""
    if plan.days is None:
        return None
    name, per_day = number_format.choose_time_unit(plan.days.value)
    table = _timeline_table(plan, per_day)
    ends = [row.begins + row.days.high for row in plan.rows if row.days]
    chart = _timeline_bars(table, name, variants, per_day * max(ends))
    lines = [*_timeline_notes(plan), *_omitted_note(plan.rows)]
    title = f"The last run that ends does so after {number_format.format_interval(plan.days, per_day)} {name}"
    heading = alt.TitleParams(title, subtitle=lines, offset=8)
    return chart.properties(width=WIDTH - LABEL_WIDTH, height=alt.Step(ROW_HEIGHT), title=heading)


def _timeline_table(plan: SavedPlan, per_day: float) -> pl.DataFrame:
    """Build the columns kind (run | last), label, variant, start, end, low, high, text."""
    records = []
    for row in plan.rows[:MAX_RUNS]:
        spans = [per_day * (row.begins + end) for end in _ends(row.days)] or [0.0, 0.0, 0.0]
        text = "never ends" if row.devices else "none fits"
        if row.days:
            text = number_format.format_interval(row.days, per_day) + " *" * bool(row.verdict)
        records.append(("run", row.name, row.variant, per_day * row.begins, *spans, text))
    records.append(("last", "", "", None, *(per_day * end for end in _ends(plan.days)), ""))
    names = ("kind", "label", "variant", "start", "end", "low", "high", "text")
    return pl.DataFrame(records, schema=[*names], orient="row", infer_schema_length=None)


def _timeline_bars(table: pl.DataFrame, unit: str, variants: Sequence[str], largest: float) -> alt.LayerChart:
    base = _base_chart(table)
    x = alt.X("start:Q").scale(nice=False, domain=[0, _axis_end(largest, table)])
    present = table["variant"].unique().to_list()
    legend = [name for name in variants if name in present]
    color = alt.Color("variant:N").scale(domain=[*variants]).legend(values=legend)
    run, text = alt.Tooltip("label:N", title="run"), alt.Tooltip("text:N", title=unit)
    bars = base.mark_bar(height=BAR_HEIGHT).encode(
        x=x.axis(title=f"{unit} since the first run began", grid=False, tickCount=8),
        x2="end:Q",
        color=color,
        tooltip=[run, alt.Tooltip("variant:N"), text],
    )
    layers = [_only_kind(bars, "run"), *_interval_and_text(base, "run")]
    last = alt.Chart().mark_rule(style="reference", strokeDash=[3, 2]).encode(x=alt.X("end:Q"))
    layers.append(_only_kind(last, "last"))
    return alt.LayerChart(layer=layers, data=inline_csv(table))


def _timeline_notes(plan: SavedPlan) -> list[str]:
    """Explain the marks, and why runs miss the plan."""
    lines = ["Dashed: end of the last run. Thin lines: 90 % interval of a run's end. Numbers: its duration."]
    rows = [row for row in plan.rows if row.verdict and row.group]
    for row in rows[:MAX_VERDICTS]:
        text = row.verdict if row.name in row.verdict else f"{row.name}: {row.verdict}"
        lines += textwrap.wrap(
            f"{'* ' * bool(row.days)}{number_format.plain_text(text).rstrip('.')}.", LINE_LETTERS
        )
    return lines + [f"{len(rows) - MAX_VERDICTS} more runs miss the plan."] * (len(rows) > MAX_VERDICTS)


def _omitted_note(rows: Sequence[PlanRow]) -> list[str]:
    return [f"{len(rows) - MAX_RUNS} of {len(rows)} runs are not drawn."] if len(rows) > MAX_RUNS else []


def _base_chart(table: pl.DataFrame) -> alt.Chart:
    names = list(dict.fromkeys(name for name in table["label"] if name))
    y = alt.Y("label:N").sort(names).scale(domain=names)
    return alt.Chart().encode(y=y.axis(title=None, labelLimit=LABEL_WIDTH, minExtent=LABEL_WIDTH - 20))


def _only_kind(marks: alt.Chart, kind: str) -> alt.Chart:
    return marks.transform_filter(alt.datum.kind == kind)


def _amount_tooltip(field: str, unit: str) -> alt.Tooltip:
    return alt.Tooltip(f"{field}:Q", title=unit, format=".4~g")


def _ends(span: Interval | None) -> tuple[float, ...]:
    return (span.value, span.low, span.high) if span else ()
