"""The panels as altair specifications: page, PNG and SVG are all drawn from these.

No specification names a colour (`theme` does), and every text of a config enters it as data or as
a JSON string, never as part of a Vega expression.
"""

from __future__ import annotations

import math
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from altair.utils.schemapi import debug_mode

from harness.compare.results import Comparison
from harness.report import frames, words
from harness.report.frames import Frames

WIDTH = 960
"""Pixels that the small multiples of a row share."""
GAP = 26
COLUMNS = 4
"""Small multiples in a row, at most."""
TEXTS = ("scale", "variant", "kind", "phase", "label")
_COUNT = "datum.value == 0 ? '0' : replace(format(datum.value, '~s'), 'G', 'B')"
_POWER = "datum.value == 0 ? '0' : replace(format(datum.value, '~e'), '+', '')"
_SIGNED = "datum.value == 0 ? '0' : format(datum.value, '+~r')"
AXES = {
    "tokens": ("tokens", _COUNT),
    "step": ("step", _COUNT),
    "flops": ("model FLOPs", _POWER),
    "device_seconds": ("device-seconds", _COUNT),
}
"""What a loss curve can be drawn over: title, and how its ticks are written (a Vega expression)."""

Spec = dict[str, Any]


def draw(comparison: Comparison, content: Frames) -> dict[str, Spec]:
    """Specifications by name, in the order of the page; a panel without anything to show is left out.

    altair's own checks cost more than everything else here; a test makes them once for all.
    """
    with debug_mode(False):
        made = {
            "ladder": ladder(comparison, content),
            "curves": curves(content),
            "deltas": differences(comparison, content),
        }
        return {name: chart.to_dict(validate=False) for name, chart in made.items() if chart is not None}


def ladder(comparison: Comparison, content: Frames) -> alt.FacetChart | None:
    """k against the control's compute, one panel a treatment: rungs, pooled band, trend, projection."""
    rows = frames.multipliers(comparison)
    if rows.is_empty():
        return None
    shown = [item.variant for item in comparison.ladder if item.variant in set(rows["variant"])]
    title = _multiplier_title(comparison)
    x = alt.X("flops:Q").scale(type="log", nice=False, padding=26)
    y = alt.Y("k:Q").scale(type="log", nice=False, padding=16).title(title)
    base = alt.Chart().encode(
        x=x.axis(title="model FLOPs of a control run", labelExpr=_POWER, values=_decades(rows), grid=False),
        y=y.axis(format=".3~f", tickCount=6),
        color=_color(content, legend=False),
    )
    ends = {"y": alt.Y("low:Q").title(title), "y2": alt.Y2("high:Q")}
    layers = [
        *_equivalence(comparison.rule.margin),
        _kind(base, "pooled").mark_area(opacity=0.13, tooltip=None).encode(**ends),
        _kind(base, "pooled").mark_line(strokeWidth=1, opacity=0.7),
        _kind(base, "trend").mark_line(strokeWidth=1.2, strokeDash=[4, 4]),
        _kind(base, "projection").mark_rule(strokeWidth=1.2, strokeDash=[4, 4]).encode(**ends),
        _kind(base, "projection")
        .mark_point(size=70, strokeWidth=1.6, opacity=1, style="hollow")
        .encode(tooltip=_told_k()),
        _kind(base, "rung").mark_rule(strokeWidth=2.4).encode(**ends),
        _kind(base, "rung").mark_point(size=80, filled=True, opacity=1).encode(tooltip=_told_k()),
        _kind(base, "rung").mark_text(align="left", dx=9, dy=-8).encode(text="scale:N"),
    ]
    title = alt.TitleParams("Multiplier k against compute", subtitle=_LADDER_LEGEND, offset=8)
    chart = _multiples(layers, "variant", shown, rows, height=230)
    return chart.properties(title=title).resolve_scale(y="independent")


_LADDER_LEGEND = "\u2003".join(
    [
        "above 1 the treatment is better",
        "grey: practically equal",
        "band: pooled over scales",
        "dashed: projection (EXTRAPOLATION)",
    ]
)


def curves(content: Frames) -> alt.FacetChart | None:
    """Training loss, one panel a scale: every step faint, the smoothed curve strong."""
    rows = content.losses
    if rows.is_empty():
        return None
    pick = alt.selection_point(name="picked", fields=["variant"], bind="legend")
    ceiling = _ceiling(rows)
    y = alt.Y("smooth:Q").scale(type="log", nice=False, domainMax=ceiling)
    base = alt.Chart().encode(
        x=_x("tokens"),
        y=y.axis(title="training loss (nats a token)", format="~r", tickCount=6),
        color=_color(content),
        detail="seed:N",
    )
    raw = base.mark_line(strokeWidth=0.7, clip=True).encode(y="loss:Q", strokeOpacity=_lit(pick, 0.35, 0))
    strong = base.mark_line(strokeWidth=1.7, clip=True).encode(strokeOpacity=_lit(pick, 1, 0.08))
    within = base.transform_filter(alt.datum.smooth <= ceiling)
    touch = within.mark_line(strokeWidth=9, strokeOpacity=0).encode(tooltip=_told_loss())
    chart = _multiples([raw, strong, touch], "scale", content.scales, rows, height=250)
    return chart.add_params(pick).resolve_scale(x="independent")


def differences(comparison: Comparison, content: Frames) -> alt.VConcatChart | None:
    """Treatment minus control on held-out text, a row a treatment and a panel a scale.

    Each seed faint, their mean strong, a band around it; hollow points were read under a hot
    learning rate, filled ones are decayed; the bar at the end is the interval of the verdict.
    """
    if content.evals.is_empty():
        return None
    pairs = frames.deltas(content.evals, comparison.rule.control)
    means, ends = frames.mean_deltas(pairs), frames.end_effects(comparison)
    shown = [name for name in content.variants if name in set(pairs["variant"])]
    if not shown:
        return None
    rows = [_difference_row(name, comparison, content, pairs, means, ends) for name in shown]
    return alt.vconcat(*rows, spacing=34)


def _difference_row(
    variant: str,
    comparison: Comparison,
    content: Frames,
    pairs: pl.DataFrame,
    means: pl.DataFrame,
    ends: pl.DataFrame,
) -> alt.FacetChart:
    joined = {
        "seed": pairs.select("scale", "variant", "seed", "tokens", "phase", pl.col("delta").alias("mean")),
        "mean": means.drop("step"),
        "verdict": ends,
    }
    kinds = [frame.with_columns(kind=pl.lit(kind)) for kind, frame in joined.items()]
    rows = pl.concat(kinds, how="diagonal_relaxed").filter(variant=variant)
    title = alt.TitleParams(
        f"{words.plain_text(variant)} minus {words.plain_text(comparison.rule.control)}",
        subtitle=_legend(means.filter(variant=variant)),
        subtitlePadding=4,
        offset=8,
    )
    chart = _multiples(_difference_layers(content), "scale", content.scales, rows, height=190)
    return chart.properties(title=title).resolve_scale(x="independent")


def _difference_layers(content: Frames) -> list[alt.Chart]:
    base = alt.Chart().encode(
        x=_x("tokens"),
        y=alt.Y("mean:Q").axis(title="ΔL held-out (nats a token)", labelExpr=_SIGNED, tickCount=6),
        color=_color(content, legend=False),
    )
    bounds = {"y": alt.Y("low:Q"), "y2": alt.Y2("high:Q")}
    mean, seed, verdict = (_kind(base, kind) for kind in ("mean", "seed", "verdict"))
    hot, run = alt.datum.phase == "hot", alt.datum.phase != "branch"
    told = _told_delta()
    return [
        _reference(y=0),
        mean.transform_filter(run).mark_area(opacity=0.14).encode(**bounds),
        seed.transform_filter(run).mark_line(strokeWidth=0.8, opacity=0.45).encode(detail="seed:N"),
        mean.transform_filter(run).mark_line(strokeWidth=2),
        mean.transform_filter(hot).mark_point(size=38, strokeWidth=1.4, opacity=1, style="hollow")
        .encode(tooltip=told),
        seed.transform_filter(~hot).mark_point(size=14, filled=True, opacity=0.5),
        mean.transform_filter(~hot).mark_point(size=95, filled=True, shape="diamond", opacity=1)
        .encode(tooltip=told),
        verdict.mark_rule(strokeWidth=2.6).encode(**bounds, tooltip=alt.Tooltip("label:N", title="verdict")),
    ]  # fmt: skip


def _legend(means: pl.DataFrame) -> list[str]:
    """What the marks are, and what the band is about."""
    n = sorted(set(means["n"]))
    seeds = f"n = {n[0]}" if len(n) == 1 else f"n = {n[0]} to {n[-1]}" if n else "n = 0"
    band = (
        f"band: {round(100 * frames.LEVEL)} % t interval at each point, population of seeds, {seeds}"
        if n and n[-1] > 1
        else "no band: one seed, these trajectories only, n = 1"
    )
    marks = ["○ hot learning rate", "◆ decayed: only these decide", "┃ interval of the verdict", band]
    return ["\u2003".join(marks)]


def _equivalence(margin: float) -> list[alt.Chart]:
    """The region in which k counts as 1, and k = 1 itself."""
    region = alt.Data(values=[{"low": math.exp(-margin), "high": math.exp(margin)}])
    band = alt.Chart(region).mark_rect(style="region").encode(y="low:Q", y2="high:Q")
    return [band, _reference(y=1)]


def _reference(y: float) -> alt.Chart:
    return alt.Chart(alt.Data(values=[{"y": y}])).mark_rule(style="reference").encode(y="y:Q")


def _multiples(
    layers: list[alt.Chart], field: str, order: list[str], rows: pl.DataFrame, height: int
) -> alt.FacetChart:
    """Small multiples of equal size, one a value of `field`, in this order."""
    columns = min(len(order), COLUMNS)
    width = min(440, round((WIDTH - GAP * (columns - 1)) / columns))
    chart = alt.LayerChart(layer=layers).properties(width=width, height=height)
    facet = alt.Facet(f"{field}:N", sort=order, title=None)
    return chart.facet(facet, columns=COLUMNS, data=inline(rows), spacing=GAP)


def inline(rows: pl.DataFrame) -> alt.Data:
    """A frame as CSV inside the specification: a third of the size of a list of objects."""
    floats = pl.selectors.float()
    shortened = rows.with_columns(pl.when(floats.is_finite()).then(floats.round_sig_figs(6)))
    parse = {name: "string" if name in TEXTS else "number" for name in rows.columns}
    return alt.Data(values=shortened.write_csv(), format=alt.CsvDataFormat(type="csv", parse=parse))


def _x(axis: str) -> alt.X:
    title, label = AXES[axis]
    return alt.X(f"{axis}:Q").scale(type="linear").axis(title=title, labelExpr=label, tickCount=5, grid=False)


def _decades(rows: pl.DataFrame) -> list[float]:
    """Powers of ten inside the ladder, where ticks stand; three ticks a decade where it has but one."""
    powers_of_ten = np.log10(rows["flops"].to_numpy())
    low, high = powers_of_ten.min(), powers_of_ten.max()
    powers = range(math.floor(low), math.ceil(high) + 1)
    steps = (1,) if high - low > 1.5 else (1, 2, 5)
    return [step * 10.0**power for power in powers for step in steps]


def _kind(base: alt.Chart, kind: str) -> alt.Chart:
    return base.transform_filter(alt.datum.kind == kind)


def _color(content: Frames, *, legend: bool = True) -> alt.Color:
    color = alt.Color("variant:N").scale(domain=content.variants)
    return color.legend(symbolOpacity=1, symbolType="stroke") if legend else color.legend(None)


def _lit(pick: alt.Parameter, on: float, off: float) -> Any:
    """Opacity of a line: `on` unless the legend picked another variant."""
    return alt.when(pick).then(alt.value(on)).otherwise(alt.value(off))


def _ceiling(rows: pl.DataFrame) -> float:
    """Top of the loss axis: where the median run stands after a twelfth of its steps.

    The fall of the first steps, or a run that diverged, would flatten all others.
    """
    later = rows.filter(
        pl.col("step") >= pl.col("step").max().over("scale") / 12, pl.col("smooth").is_finite()
    )
    starts = later.group_by("scale", "variant", "seed").agg(pl.col("smooth").sort_by("step").first())
    medians = starts.group_by("scale").agg(pl.col("smooth").median())["smooth"].to_list()
    return 1.05 * max(medians, default=1.0)


def _multiplier_title(comparison: Comparison) -> str:
    axes = {words.AXIS[rung.k.estimand] for rung in comparison.rungs if rung.k}
    return f"k, multiplier of {' or '.join(sorted(axes))}"


def _told_k() -> list[alt.Tooltip]:
    return [
        alt.Tooltip("variant:N"),
        alt.Tooltip("scale:N"),
        alt.Tooltip("label:N", title="k [95 % CI]"),
        alt.Tooltip("flops:Q", title="model FLOPs", format=".2e"),
    ]


def _told_loss() -> list[alt.Tooltip]:
    names = [alt.Tooltip(f"{name}:N") for name in ("variant", "seed")]
    values = [alt.Tooltip("loss:Q", format=".4f"), alt.Tooltip("smooth:Q", title="smoothed", format=".4f")]
    axes = [alt.Tooltip(f"{name}:Q", title=title, format=".4~s") for name, (title, _) in AXES.items()]
    return [*names, *values, *axes]


def _told_delta() -> list[alt.Tooltip]:
    numbers = [alt.Tooltip(f"{name}:Q", format="+.4f") for name in ("mean", "low", "high")]
    return [
        *[alt.Tooltip(f"{name}:N") for name in ("variant", "phase", "n")],
        alt.Tooltip("tokens:Q", format=".4~s"),
        *numbers,
    ]
