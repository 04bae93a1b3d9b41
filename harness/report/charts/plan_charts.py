"""A plan as pictures: who has the chips, what fills their memory, when the runs end."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import altair as alt
import polars as pl

from harness.core import number_format
from harness.core.interval import Interval
from harness.report.charts.chip_shares import partition
from harness.report.charts.marks import WIDTH, inline_csv
from harness.report.frames.saved_plan import GIB, KeptPlan, Row, memory_unit, time_unit

PARTS = ("weights", "optimizer", "gradients", "activations", "gathered", "logits")
"""Of a device's memory, in the order in which they are stacked and of the theme's colours."""
ROWS = 40
"""Runs that are drawn as bars; more than fit on a screen tell nothing."""
STEP, BAR = 26, 13
"""Pixels of a row, and of its bar."""
NAMES = 190
"""Pixels of the names beside bars."""
FAR = 20
"""A limit that is so many times the longest bar is told, and not drawn."""
VERDICTS, LINE = 4, 150
"""Sentences above bars, at most, and letters of a line of them."""
LETTER = 6.5
"""Pixels of a letter of what stands behind bars, at most."""


def plan_panels(plan: KeptPlan, variants: Sequence[str] = ()) -> dict[str, alt.LayerChart]:
    """By name; what nothing is known of is left out. `variants` come first in the order of colours, so that
    one has the same in every panel of a page."""
    colours = list(dict.fromkeys([*variants, *(row.variant for row in plan.rows)]))
    if not plan.rows:
        return {}
    made = {
        "plan_partition": partition(plan, colours),
        "plan_memory": memory(plan),
        "plan_timeline": timeline(plan, colours),
    }
    return {name: chart for name, chart in made.items() if chart is not None}


def memory(plan: KeptPlan) -> alt.LayerChart | None:
    """One stacked bar a run (or several that are alike), by part, against what a plan may use."""
    if not any(row.memory for row in plan.rows):
        return None
    rows = [row for row in plan.rows if row.group]
    most = max(sum(part.value for part in row.memory.values()) for row in rows)
    name, size = memory_unit(most)
    bound = max((row.memory_limit or 0.0 for row in rows), default=0.0)
    table = _memory_table(rows[:ROWS], size, bounded=bound < FAR * most)
    chart = _memory_chart(table, name).properties(width=WIDTH - NAMES, height=alt.Step(STEP))
    told = (
        _limits(rows)
        if bound < FAR * most
        else f"What a plan may use, {number_format.format_number(bound / GIB)} GiB, lies far to the right."
    )
    lines = [f"Numbers: the sum; thin lines: how far it may be off. {told}", *_left_out(rows)]
    return chart.properties(
        title=alt.TitleParams(f"Memory of the fullest device, {name}", subtitle=lines, offset=8)
    )


def _memory_table(rows: Sequence[Row], size: float, *, bounded: bool) -> pl.DataFrame:
    """kind (part | whole | limit | chip), label (run), phase (part), value, low, high, in units, text."""
    records = []
    for row in rows:
        for part, held in row.memory.items():
            records.append(
                ("part", row.group, part, held.value / size, held.low / size, held.high / size, "")
            )
        whole = [
            sum(getattr(part, end) for part in row.memory.values()) / size for end in ("value", "low", "high")
        ]
        told = number_format.format_number(whole[0]) if row.memory else "none fits"
        records.append(("whole", row.group, "", *whole, told))
        for name, bound in (("limit", row.memory_limit), ("chip", row.chip_memory)):
            if bound and bounded:
                records.append((name, row.group, "", bound / size, None, None, ""))
    names = ("kind", "label", "phase", "value", "low", "high", "text")
    return pl.DataFrame(records, schema=[*names], orient="row", infer_schema_length=None)


def _memory_chart(table: pl.DataFrame, unit: str) -> alt.LayerChart:
    seen = [part for part in table["phase"].unique(maintain_order=True) if part]
    parts = [*PARTS, *(part for part in seen if part not in PARTS)]
    place = pl.DataFrame({"phase": parts, "place": range(len(parts))})
    table = table.join(place, on="phase", how="left", maintain_order="left")
    most = max(table[end].max() for end in ("value", "high"))  # pyright: ignore
    x, base = alt.X("value:Q").scale(nice=False, domain=[0, _with_room(most, table)]), _base(table)
    color = alt.Color("phase:N").scale(domain=parts).legend(values=[part for part in parts if part in seen])
    told = [alt.Tooltip("label:N", title="run"), alt.Tooltip("phase:N", title="part"), _amount("value", unit)]
    bars = base.mark_bar(height=BAR).encode(
        x=x.axis(title=f"{unit} a device", grid=False, tickCount=8).stack("zero"),
        color=color,
        order=alt.Order("place:Q"),
        tooltip=told,
    )
    layers = [_of(bars, "part"), *_told_behind(base, "whole")]
    for name, thickness in (("limit", 2.5), ("chip", 1)):
        if name in table["kind"]:
            tick = base.mark_tick(style="mark", thickness=thickness, height=STEP - 4, opacity=1)
            layers.append(_of(tick.encode(x=x, tooltip=[_amount("value", unit)]), name))
    return alt.LayerChart(layer=layers, data=inline_csv(table))


def _told_behind(base: alt.Chart, kind: str) -> list[alt.Chart]:
    """The interval of each bar, and at the right edge its number in words."""
    whisker = base.mark_rule(style="mark", strokeWidth=1.2).encode(x=alt.X("low:Q"), x2="high:Q")
    text = base.mark_text(align="right", style="mark").encode(x=alt.XValue("width"), text="text:N")
    return [_of(whisker, kind), _of(text, kind)]


def _with_room(most: float, table: pl.DataFrame) -> float:
    """Where the axis ends, so that the words at its right edge lie on nothing."""
    room = LETTER * max(map(len, table["text"])) + 12
    return most * (WIDTH - NAMES) / (WIDTH - NAMES - room)


def _limits(rows: Sequence[Row]) -> str:
    """What the marks of each row are."""
    shares = {
        f"{row.memory_limit / row.chip_memory:.0%}" for row in rows if row.memory_limit and row.chip_memory
    }
    if not shares:
        return "What a device may hold is not known."
    return (
        f"Thick: what a plan may use, {', '.join(sorted(shares))} of the chip's memory; beside it: all of it."
    )


def timeline(plan: KeptPlan, variants: Sequence[str]) -> alt.LayerChart | None:
    """One bar a run from its beginning to its end, with the interval of the end; None where no run ends."""
    if plan.days is None:
        return None
    name, a_day = time_unit(plan.days.value)
    table = _timeline_table(plan, a_day)
    ends = [row.begins + row.days.high for row in plan.rows if row.days]
    chart = _timeline_chart(table, name, variants, a_day * max(ends))
    lines = [*_remarks(plan), *_left_out(plan.rows)]
    said = f"The last run that ends does so after {number_format.format_interval(plan.days, a_day)} {name}"
    return chart.properties(
        width=WIDTH - NAMES,
        height=alt.Step(STEP),
        title=alt.TitleParams(said, subtitle=lines, offset=8),
    )


def _timeline_table(plan: KeptPlan, a_day: float) -> pl.DataFrame:
    """kind (run | last), label, variant, start, end, low, high, in units, text."""
    records = []
    for row in plan.rows[:ROWS]:
        spans = [a_day * (row.begins + end) for end in _ends(row.days)] or [0.0, 0.0, 0.0]
        told = "never ends" if row.devices else "none fits"
        if row.days:
            told = number_format.format_interval(row.days, a_day) + " *" * bool(row.verdict)
        records.append(("run", row.name, row.variant, a_day * row.begins, *spans, told))
    records.append(("last", "", "", None, *(a_day * end for end in _ends(plan.days)), ""))
    names = ("kind", "label", "variant", "start", "end", "low", "high", "text")
    return pl.DataFrame(records, schema=[*names], orient="row", infer_schema_length=None)


def _timeline_chart(table: pl.DataFrame, unit: str, variants: Sequence[str], most: float) -> alt.LayerChart:
    base = _base(table)
    x = alt.X("start:Q").scale(nice=False, domain=[0, _with_room(most, table)])
    seen = table["variant"].unique().to_list()
    color = (
        alt.Color("variant:N")
        .scale(domain=[*variants])
        .legend(values=[name for name in variants if name in seen])
    )
    told = [alt.Tooltip("label:N", title="run"), alt.Tooltip("variant:N"), alt.Tooltip("text:N", title=unit)]
    bars = base.mark_bar(height=BAR).encode(
        x=x.axis(title=f"{unit} since the first run began", grid=False, tickCount=8),
        x2="end:Q",
        color=color,
        tooltip=told,
    )
    layers = [_of(bars, "run"), *_told_behind(base, "run")]
    last = alt.Chart().mark_rule(style="reference", strokeDash=[3, 2]).encode(x=alt.X("end:Q"))
    layers.append(_of(last, "last"))
    return alt.LayerChart(layer=layers, data=inline_csv(table))


def _remarks(plan: KeptPlan) -> list[str]:
    """What the marks are, and why runs cannot run as announced."""
    lines = [
        "Dashes: its end. Thin lines: between which times a run ends (90 %). Numbers: how long it takes."
    ]
    wrong = [row for row in plan.rows if row.verdict and row.group]
    for row in wrong[:VERDICTS]:
        said = row.verdict if row.name in row.verdict else f"{row.name}: {row.verdict}"
        lines += textwrap.wrap(f"{'* ' * bool(row.days)}{number_format.plain_text(said).rstrip('.')}.", LINE)
    return lines + [f"{len(wrong) - VERDICTS} more are not as announced."] * (len(wrong) > VERDICTS)


def _left_out(rows: Sequence[Row]) -> list[str]:
    return [f"{len(rows) - ROWS} of {len(rows)} runs are not drawn."] if len(rows) > ROWS else []


def _base(table: pl.DataFrame) -> alt.Chart:
    names = list(dict.fromkeys(name for name in table["label"] if name))
    y = alt.Y("label:N").sort(names).scale(domain=names)
    return alt.Chart().encode(y=y.axis(title=None, labelLimit=NAMES, minExtent=NAMES - 20))


def _of(marks: alt.Chart, kind: str) -> alt.Chart:
    return marks.transform_filter(alt.datum.kind == kind)


def _amount(field: str, unit: str) -> alt.Tooltip:
    return alt.Tooltip(f"{field}:Q", title=unit, format=".4~g")


def _ends(span: Interval | None) -> tuple[float, ...]:
    return (span.value, span.low, span.high) if span else ()
