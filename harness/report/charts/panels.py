"""The panels as altair specifications: page, PNG and SVG are all drawn from these."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from altair.utils.schemapi import debug_mode

from harness.compare.results.comparison import Comparison
from harness.report.charts.gantt import gantt
from harness.report.charts.loss_difference import loss_differences
from harness.report.charts.marks import (
    AXES,
    POWER_TICKS,
    ChartLayer,
    non_empty_layers,
    reference_line,
    small_multiples,
    variant_color,
    x_axis,
)
from harness.report.charts.plan_charts import plan_panels
from harness.report.frames import sweep_frames
from harness.report.frames.sweep_frames import Frames
from harness.report.tables import wording

Spec = dict[str, Any]
Panel = alt.FacetChart | alt.VConcatChart | alt.LayerChart


def panel_specs(comparison: Comparison, content: Frames) -> dict[str, Spec]:
    """Specifications by name, in the order of the page; a panel without anything to show is left out."""
    return to_specs(panel_charts(comparison, content))


def to_specs(charts: Mapping[str, Panel]) -> dict[str, Spec]:
    """Of charts, unchecked: altair's own checks cost more than everything else here; a test makes them."""
    with debug_mode(False):
        return {name: chart.to_dict(validate=False) for name, chart in charts.items()}


def panel_charts(comparison: Comparison, content: Frames) -> dict[str, Panel]:
    """The same as charts."""
    candidates = {
        "ladder": ladder_chart(comparison, content),
        "curves": loss_curves(content),
        "others": other_unit_curves(content),
        "deltas": loss_differences(comparison, content),
        "experts": expert_load_chart(content),
        "fleet": gantt(content),
    }
    present = {name: chart for name, chart in candidates.items() if chart is not None}
    return present | (plan_panels(content.plan, content.variants) if content.plan else {})


def ladder_chart(comparison: Comparison, content: Frames) -> alt.FacetChart | None:
    """k against the control's compute, one panel a treatment: rungs, pooled band, trend, projection."""
    rows = sweep_frames.multipliers(comparison)
    if rows.is_empty():
        return None
    variants = [item.variant for item in comparison.ladder if item.variant in set(rows["variant"])]
    layers = [
        *_equivalence_region(comparison),
        *non_empty_layers(_ladder_layers(comparison, content, rows), rows),
    ]
    chart = small_multiples(layers, "variant", variants, rows, height=230, own_y=True)
    title = alt.TitleParams("Multiplier k against compute", subtitle=_ladder_legend(rows), offset=8)
    return chart.properties(title=title)


def _ladder_layers(comparison: Comparison, content: Frames, rows: pl.DataFrame) -> list[ChartLayer]:
    title = _multiplier_title(comparison)
    x = alt.X("flops:Q").scale(type="log", nice=False, padding=26)
    y = alt.Y("k:Q").scale(type="log", nice=False, padding=18).title(title)
    base = alt.Chart().encode(
        x=x.axis(
            title="model FLOPs of a control run",
            labelExpr=POWER_TICKS,
            values=_compute_ticks(rows),
            grid=False,
        ),
        y=y.axis(format=".3~f", tickCount=6),
        color=variant_color(content, legend=False),
    )
    ends = {"y": alt.Y("low:Q").title(title), "y2": alt.Y2("high:Q")}
    hollow = base.mark_point(size=70, strokeWidth=1.6, opacity=1, style="hollow")
    tooltips = _multiplier_tooltips()
    return [
        ChartLayer("pooled", base.mark_area(opacity=0.13).encode(**ends), "low"),
        ChartLayer("pooled", base.mark_line(strokeWidth=1, opacity=0.7), "k"),
        ChartLayer("trend", base.mark_line(strokeWidth=1.2, strokeDash=[4, 4]), "k"),
        ChartLayer("projection", base.mark_rule(strokeWidth=1.2, strokeDash=[4, 4]).encode(**ends), "low"),
        ChartLayer("projection", hollow.encode(tooltip=tooltips), "k"),
        ChartLayer("rung", base.mark_rule(strokeWidth=2.4).encode(**ends), "low"),
        ChartLayer("rung", base.mark_point(size=80, filled=True, opacity=1).encode(tooltip=tooltips), "k"),
        ChartLayer("rung", base.mark_text(baseline="bottom", dy=-5).encode(y="top:Q", text="scale:N"), "k"),
    ]


def _ladder_legend(rows: pl.DataFrame) -> str:
    marks = ["above 1 the treatment is better", "grey: practically equal"]
    if "pooled" in rows["kind"]:
        marks.append("band: pooled over scales")
    if "projection" in rows["kind"]:
        marks.append("dashed: projection (EXTRAPOLATION)")
    return "\u2003".join(marks)


def _equivalence_region(comparison: Comparison) -> list[alt.Chart]:
    """The region in which k counts as 1, and k = 1 itself."""
    margin = comparison.rule.margin
    region = alt.Data(values=[{"low": math.exp(-margin), "high": math.exp(margin)}])
    band = alt.Chart(region).mark_rect(style="region").encode(y="low:Q", y2="high:Q")
    return [band, reference_line(y=1)]


def _compute_ticks(rows: pl.DataFrame) -> list[float]:
    """Where ticks stand: at powers of ten, three a decade on a short ladder, on one rung at its own value."""
    powers = np.log10(rows["flops"].to_numpy())
    low, high = powers.min(), powers.max()
    if low == high:
        return [float(f"{10**low:.2g}")]
    steps = (1,) if high - low > 1.5 else (1, 2, 5)
    ticks = [step * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for step in steps]
    return [tick for tick in ticks if low - 0.2 <= math.log10(tick) <= high + 0.2]


def _multiplier_title(comparison: Comparison) -> str:
    axes = {wording.MULTIPLIED[rung.k.estimand] for rung in comparison.rungs if rung.k}
    return f"k, multiplier of {' or '.join(sorted(axes))}"


def _multiplier_tooltips() -> list[alt.Tooltip]:
    return [
        alt.Tooltip("variant:N"),
        alt.Tooltip("scale:N"),
        alt.Tooltip("label:N", title="k [95 % CI]"),
        alt.Tooltip("flops:Q", title="model FLOPs", format=".2e"),
    ]


def loss_curves(content: Frames) -> alt.FacetChart | None:
    """Training loss, one panel a scale: every step faint, the smoothed curve strong."""
    return _curves(content, content.scales, content.unit)


def other_unit_curves(content: Frames) -> alt.VConcatChart | None:
    """The same for losses of other units, one row a scale."""
    units = {run.record.scale: run.record.facts.loss_unit for run in content.runs}
    rows = [_curves(content, [scale], units[scale]) for scale in content.other_scales]
    present = [row for row in rows if row is not None]
    return alt.vconcat(*present, spacing=34) if present else None


def _curves(content: Frames, scales: list[str], unit: str) -> alt.FacetChart | None:
    rows = content.losses.filter(pl.col("scale").is_in(scales)) if scales else pl.DataFrame()
    if rows.is_empty():
        return None
    pick = alt.selection_point(name="picked", fields=["variant"], bind="legend")
    ceiling = _loss_ceiling(rows)
    y = alt.Y("smooth:Q").scale(type="log", nice=False, domainMax=ceiling)
    base = alt.Chart().encode(
        x=x_axis("tokens"),
        y=y.axis(title=f"training loss ({unit})" if content.sweep else "loss", format="~r", tickCount=6),
        color=variant_color(content),
        detail="seed:N",
    )
    raw = base.mark_line(strokeWidth=0.7, clip=True).encode(y="loss:Q", strokeOpacity=_opacity(pick, 0.35, 0))
    strong = base.mark_line(strokeWidth=1.7, clip=True).encode(strokeOpacity=_opacity(pick, 1, 0.08))
    within = base.transform_filter(alt.datum.smooth <= ceiling)
    touch = within.mark_line(strokeWidth=9, strokeOpacity=0).encode(tooltip=_loss_tooltips())
    chart = small_multiples([raw, strong, touch], "scale", scales, rows, height=250)
    return chart.add_params(pick)


def expert_load_chart(content: Frames) -> alt.FacetChart | None:
    """Load of the busiest expert, and what was dropped below it, one panel a scale; dense runs have none."""
    rows = content.expert_loads
    if rows.is_empty():
        return None
    base = alt.Chart().encode(x=x_axis("tokens"), color=variant_color(content), detail="seed:N")
    names = [alt.Tooltip(f"{name}:N") for name in ("variant", "seed")]
    values = [alt.Tooltip("load:Q", format=".3f"), alt.Tooltip("dropped:Q", format=".1%")]
    y = alt.Y("load:Q").axis(title="busiest expert (1: even), dropped (share)", tickCount=6)
    load = base.mark_line(strokeWidth=1.5).encode(y=y, tooltip=[*names, *values])
    dropped = base.mark_line(strokeWidth=0.9, opacity=0.6).encode(y="dropped:Q")
    return small_multiples(
        [reference_line(y=1), load, dropped], "scale", _scales_of(content), rows, height=200
    )


def _scales_of(content: Frames) -> list[str]:
    """The scales at which some run has experts."""
    return [scale for scale in content.scales if scale in set(content.expert_loads["scale"])]


def _opacity(pick: alt.Parameter, on: float, off: float) -> Any:
    """Opacity of a line: `on` unless the legend picked another variant."""
    return alt.when(pick).then(alt.value(on)).otherwise(alt.value(off))


def _loss_ceiling(rows: pl.DataFrame) -> float:
    """Top of the loss axis: where the median run stands after a twelfth of its steps.

    The fall of the first steps, or a run that diverged, would flatten all others.
    """
    later = rows.filter(
        pl.col("step") >= pl.col("step").max().over("scale") / 12, pl.col("smooth").is_finite()
    )
    starts = later.group_by("scale", "variant", "seed").agg(pl.col("smooth").sort_by("step").first())
    medians = starts.group_by("scale").agg(pl.col("smooth").median())["smooth"].to_list()
    return 1.05 * max(medians, default=1.0)


def _loss_tooltips() -> list[alt.Tooltip]:
    names = [alt.Tooltip(f"{name}:N") for name in ("variant", "seed")]
    values = [alt.Tooltip("loss:Q", format=".4f"), alt.Tooltip("smooth:Q", title="smoothed", format=".4f")]
    axes = [alt.Tooltip(f"{name}:Q", title=title, format=".4~s") for name, (title, _) in AXES.items()]
    return [*names, *values, *axes]
