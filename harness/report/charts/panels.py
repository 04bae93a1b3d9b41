"""The charts of the report, from which page, PNG and SVG are drawn."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from altair.utils.schemapi import debug_mode

from harness.compare.results.comparison import Comparison
from harness.compare.verdict.verdict_text import MULTIPLIED
from harness.report.charts import marks
from harness.report.charts.gantt import gantt
from harness.report.charts.loss_difference import loss_differences
from harness.report.charts.marks import ChartLayer
from harness.report.charts.plan_charts import plan_charts
from harness.report.frames import sweep_frames
from harness.report.frames.sweep_frames import Frames

LINE_SEPARATORS = {0x2028: "\u21b5", 0x2029: "\u21b5"}
"""Sign in a chart for each character of a name that Vega does not take."""
Spec = dict[str, Any]
Panel = alt.FacetChart | alt.VConcatChart | alt.LayerChart


def panel_specs(comparison: Comparison, content: Frames) -> dict[str, Spec]:
    """Return Vega-Lite specifications by name, in the order of the page, without charts that have no data."""
    return to_specs(panel_charts(comparison, content))


def to_specs(charts: Mapping[str, Panel]) -> dict[str, Spec]:
    """Convert charts without altair's validation, which costs more than all else here; a test validates."""
    with debug_mode(False):
        return {name: drawable(chart.to_dict(validate=False)) for name, chart in charts.items()}


def drawable(spec: Spec) -> Spec:
    """Return a specification without the line separators of Unicode, which end a string in Vega."""
    text = json.dumps(spec, ensure_ascii=False)
    return json.loads(text.translate(LINE_SEPARATORS)) if not text.isascii() else spec


def panel_charts(comparison: Comparison, content: Frames) -> dict[str, Panel]:
    """Return the charts by name, in the order of the page, without those that have no data."""
    candidates = {
        "ladder": ladder_chart(comparison, content),
        "curves": loss_curves(content),
        "others": other_unit_curves(content),
        "deltas": loss_differences(comparison, content),
        "experts": expert_load_chart(content),
        "metrics": metric_curves(content),
        "fleet": gantt(content),
    }
    present = {name: chart for name, chart in candidates.items() if chart is not None}
    return present | (plan_charts(content.plan, content.variants) if content.plan else {})


def ladder_chart(comparison: Comparison, content: Frames) -> alt.FacetChart | None:
    """Draw k against the control's compute, one panel per treatment, with pooled band, trend, bet."""
    rows = sweep_frames.multipliers(comparison)
    if rows.is_empty():
        return None
    variants = [item.variant for item in comparison.ladder if item.variant in set(rows["variant"])]
    k_layers = marks.non_empty_layers(_ladder_layers(comparison, content, rows), rows)
    margin = comparison.rule.margin  # the region in which k counts as 1
    region = alt.Data(values=[{"low": math.exp(-margin), "high": math.exp(margin)}])
    band = alt.Chart(region).mark_rect(style="region").encode(y="low:Q", y2="high:Q")
    layers = [band, marks.reference_line(y=1), *k_layers]
    chart = marks.small_multiples(layers, "variant", variants, rows, height=230, own_y=True)
    title = alt.TitleParams("Multiplier k against compute", subtitle=_ladder_legend(rows), offset=8)
    return chart.properties(title=title)


def _ladder_layers(comparison: Comparison, content: Frames, rows: pl.DataFrame) -> list[ChartLayer]:
    axes = {MULTIPLIED[rung.k.estimand] for rung in comparison.rungs if rung.k}
    title = f"k, multiplier of {' or '.join(sorted(axes))}, {marks.UP_IS_BETTER}"
    x = alt.X("flops:Q").scale(type="log", nice=False, padding=26)
    y = alt.Y("k:Q").scale(type="log", nice=False, padding=18).title(title)
    ticks = {"labelExpr": marks.POWER_TICKS, "values": _compute_ticks(rows)}
    base = alt.Chart().encode(
        x=x.axis(title="model FLOPs of a control run", grid=False, **ticks),
        y=y.axis(format=".3~f", tickCount=6),
        color=marks.variant_color(content, legend=False),
    )
    ends = {"y": alt.Y("low:Q").title(title), "y2": alt.Y2("high:Q")}
    hollow = base.mark_point(size=70, strokeWidth=1.6, opacity=1, style="hollow")
    tooltips = [
        *(alt.Tooltip("variant:N"), alt.Tooltip("scale:N"), alt.Tooltip("label:N", title="k [95 % CI]")),
        alt.Tooltip("flops:Q", title="model FLOPs", format=".2e"),
    ]
    return [
        ChartLayer("pooled", base.mark_area(opacity=0.13).encode(**ends), "low"),
        ChartLayer("pooled", base.mark_line(strokeWidth=1, opacity=0.7), "k"),
        ChartLayer("trend", base.mark_line(strokeWidth=1.2, strokeDash=[4, 4]), "k"),
        ChartLayer("bet", base.mark_rule(strokeWidth=1.2).encode(**ends), "low"),
        ChartLayer("bet", hollow.encode(tooltip=tooltips), "k"),
        ChartLayer("rung", base.mark_rule(strokeWidth=2.4).encode(**ends), "low"),
        ChartLayer("rung", base.mark_point(size=80, filled=True, opacity=1).encode(tooltip=tooltips), "k"),
        ChartLayer("rung", base.mark_text(baseline="bottom", dy=-5).encode(y="top:Q", text="scale:N"), "k"),
    ]


def _ladder_legend(rows: pl.DataFrame) -> str:
    texts = ["up: the variant is better", "1 and grey: practically equal"]
    if "pooled" in rows["kind"]:
        texts.append("band: pooled over scales")
    if "trend" in rows["kind"]:
        texts.append("dashed: line through the scales")
    if "bet" in rows["kind"]:
        texts.append("hollow: k at the target, 90 %")
    return "\u2003".join(texts)


def _compute_ticks(rows: pl.DataFrame) -> list[float]:
    """Return ticks at powers of ten, three per decade on a short ladder, or at the value of a single rung."""
    powers = np.log10(rows["flops"].to_numpy())
    low, high = powers.min(), powers.max()
    if low == high:
        return [float(f"{10**low:.2g}")]
    steps = (1,) if high - low > 1.5 else (1, 2, 5)
    ticks = [step * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for step in steps]
    return [tick for tick in ticks if low - 0.2 <= math.log10(tick) <= high + 0.2]


def loss_curves(content: Frames) -> alt.FacetChart | None:
    """Draw the training loss, one panel per scale: each step faint, the smoothed curve strong."""
    return _curves(content, content.scales, content.unit)


def other_unit_curves(content: Frames) -> alt.VConcatChart | None:
    """Draw the training loss at scales whose loss has another unit, one row per scale."""
    units = {run.record.scale: run.record.facts.loss_unit for run in content.runs}
    rows = [_curves(content, [scale], units[scale]) for scale in content.other_scales]
    present = [row for row in rows if row is not None]
    return alt.vconcat(*present, spacing=34) if present else None


def _curves(content: Frames, scales: list[str], unit: str) -> alt.FacetChart | None:
    rows = content.losses.filter(pl.col("scale").is_in(scales)) if scales else pl.DataFrame()
    if rows.is_empty():
        return None
    pick = alt.selection_point(name="picked", fields=["variant"], bind="legend")
    ceiling = sweep_frames.loss_ceiling(rows)
    y = alt.Y("smooth:Q").scale(type="log", nice=False, domainMax=ceiling)
    quantity = f"training loss ({unit})" if content.sweep else "loss"
    base = alt.Chart().encode(
        x=marks.x_axis("tokens"),
        y=y.axis(title=f"{marks.DOWN_IS_BETTER}, {quantity}", format="~r", tickCount=6),
        color=marks.variant_color(content),
        detail="seed:N",
    )
    raw = base.mark_line(strokeWidth=0.7, clip=True).encode(y="loss:Q", strokeOpacity=_opacity(pick, 0.35, 0))
    strong = base.mark_line(strokeWidth=1.7, clip=True).encode(strokeOpacity=_opacity(pick, 1, 0.08))
    within = base.transform_filter(alt.datum.smooth <= ceiling)
    touch = within.mark_line(strokeWidth=9, strokeOpacity=0).encode(tooltip=_loss_tooltips())
    chart = marks.small_multiples([raw, strong, touch], "scale", scales, rows, height=250)
    return chart.add_params(pick)


def expert_load_chart(content: Frames) -> alt.FacetChart | None:
    """Draw the load of the busiest expert and the dropped share, one panel per scale (None: no experts)."""
    rows = content.expert_loads
    if rows.is_empty():
        return None
    base = alt.Chart().encode(x=marks.x_axis("tokens"), color=marks.variant_color(content), detail="seed:N")
    names = [alt.Tooltip(f"{name}:N") for name in ("variant", "seed")]
    values = [alt.Tooltip("load:Q", format=".3f"), alt.Tooltip("dropped:Q", format=".1%")]
    y = alt.Y("load:Q").axis(title="busiest expert (1: even), dropped (share)", tickCount=6)
    load = base.mark_line(strokeWidth=1.5).encode(y=y, tooltip=[*names, *values])
    dropped = base.mark_line(strokeWidth=0.9, opacity=0.6).encode(y="dropped:Q")
    scales = [scale for scale in content.scales if scale in set(rows["scale"])]
    layers = [marks.reference_line(y=1), load, dropped]
    return marks.small_multiples(layers, "scale", scales, rows, height=200)


def metric_curves(content: Frames) -> alt.FacetChart | None:
    """Draw the metrics of each step, one panel per metric and scale (None: there are none)."""
    rows = content.own_metrics
    if rows.is_empty():
        return None
    base = alt.Chart().encode(x=marks.x_axis("tokens"), color=marks.variant_color(content), detail="seed:N")
    names = [alt.Tooltip(f"{name}:N") for name in ("variant", "seed")]
    y = alt.Y("value:Q").scale(zero=False).axis(title=None, format="~g", tickCount=6)
    lines = base.mark_line(strokeWidth=1.5).encode(
        y=y, tooltip=[*names, alt.Tooltip("value:Q", format=".4g")]
    )
    labels = rows["label"].unique(maintain_order=True).to_list()
    return marks.small_multiples([lines], "label", labels, rows, height=200, own_y=True)


def _opacity(pick: alt.Parameter, on: float, off: float) -> Any:
    """Return the opacity of a line: `on` unless another variant is picked in the legend."""
    return alt.when(pick).then(alt.value(on)).otherwise(alt.value(off))


def _loss_tooltips() -> list[alt.Tooltip]:
    names = [alt.Tooltip(f"{name}:N") for name in ("variant", "seed")]
    values = [alt.Tooltip("loss:Q", format=".4f"), alt.Tooltip("smooth:Q", title="smoothed", format=".4f")]
    axes = [alt.Tooltip(f"{name}:Q", title=title, format=".4~s") for name, (title, _) in marks.AXES.items()]
    return [*names, *values, *axes]
