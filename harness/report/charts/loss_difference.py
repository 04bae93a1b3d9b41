"""Chart of treatment minus control along the run, with the points that the verdict uses marked."""

from __future__ import annotations

import altair as alt
import polars as pl

from harness.compare.results.comparison import Comparison
from harness.core.number_format import plain_text
from harness.report.charts import marks
from harness.report.charts.marks import ChartLayer
from harness.report.frames import sweep_frames
from harness.report.frames.sweep_frames import Frames


def loss_differences(
    comparison: Comparison, content: Frames, *, scale: str | None = None, variant: str | None = None
) -> alt.VConcatChart | None:
    """Draw held-out loss of treatment minus control: one row per treatment, one panel per scale, or only that
    of a scale and a treatment.

    The y axis is turned over, so that up is better, as for k. Seeds are faint, their mean is strong with a
    band around it. Hollow points have a learning rate that is not decayed yet, filled points are decayed. The
    bar at the end is the interval of the verdict.
    """
    if content.evals.is_empty():
        return None
    control = comparison.rule.control
    rows = _row_data(comparison, sweep_frames.paired_deltas(content.evals, control))
    chosen = {"scale": scale, "variant": variant}
    rows = rows.filter(**{name: value for name, value in chosen.items() if value is not None})
    variants = [name for name in content.variants if name in set(rows["variant"])]
    if not variants:
        return None
    charts = [_row(name, control, content, rows.filter(variant=name)) for name in variants]
    return alt.vconcat(*charts, spacing=34)


def _row_data(comparison: Comparison, pairs: pl.DataFrame) -> pl.DataFrame:
    """Return the data of all rows, with a column `kind`: seed | mean | verdict."""
    is_paired = pl.col("variant").is_in(pairs["variant"].to_list())
    kinds = {
        "seed": pairs.select("scale", "variant", "seed", "tokens", "phase", mean="delta"),
        "mean": sweep_frames.mean_deltas(pairs).drop("step"),
        "verdict": sweep_frames.end_effects(comparison).filter(is_paired),
    }
    frames = [frame.with_columns(kind=pl.lit(kind)) for kind, frame in kinds.items()]
    return pl.concat(frames, how="diagonal_relaxed")


def _row(variant: str, control: str, content: Frames, rows: pl.DataFrame) -> alt.FacetChart:
    text = f"{plain_text(variant)} minus {plain_text(control)}"
    title = alt.TitleParams(text, subtitle=legend(rows), subtitlePadding=4, offset=8)
    layers = [marks.reference_line(y=0), *marks.non_empty_layers(_layers(content), rows)]
    scales = [scale for scale in content.scales if scale in set(rows["scale"])]
    chart = marks.small_multiples(layers, "scale", scales, rows, height=190)
    return chart.properties(title=title)


def _layers(content: Frames) -> list[ChartLayer]:
    quantity = f"ΔL held-out ({content.unit})" if content.sweep else "ΔL"
    axis = {"title": f"{quantity}, {marks.UP_IS_BETTER}", "labelExpr": marks.SIGNED_TICKS, "tickCount": 6}
    base = alt.Chart().encode(
        x=marks.x_axis("tokens"),
        y=alt.Y("mean:Q").axis(**axis).scale(reverse=True),
        color=marks.variant_color(content, legend=False),
    )
    bounds = {"y": alt.Y("low:Q"), "y2": alt.Y2("high:Q")}
    seeds = base.mark_line(strokeWidth=0.8, opacity=0.45).encode(detail="seed:N")
    hot = base.mark_point(size=38, strokeWidth=1.4, opacity=1, style="hollow")
    decayed = base.mark_point(size=95, filled=True, shape="diamond", opacity=1)
    bar = base.mark_rule(strokeWidth=2.6).encode(**bounds, tooltip=alt.Tooltip("label:N", title="verdict"))
    run, ends = ("hot", "decayed"), ("decayed", "branch")
    return [
        ChartLayer("mean", base.mark_area(opacity=0.14).encode(**bounds), "low", run),
        ChartLayer("seed", seeds, "mean", run),
        ChartLayer("mean", base.mark_line(strokeWidth=2), "mean", run),
        ChartLayer("mean", hot.encode(tooltip=_tooltips()), "mean", ("hot",)),
        ChartLayer("seed", base.mark_point(size=14, filled=True, opacity=0.5), "mean", ends),
        ChartLayer("mean", decayed.encode(tooltip=_tooltips()), "mean", ends),
        ChartLayer("verdict", bar, "low"),
    ]


def legend(rows: pl.DataFrame) -> str:
    """Explain the marks and the band in one line."""
    n = rows.filter(kind="mean")["n"].unique().sort().to_list()
    band = "no band: one seed, these trajectories only, n = 1"
    if n and n[-1] > 1:
        seeds = f"n = {n[0]}" if len(n) == 1 else f"n = {n[0]} to {n[-1]}"
        level = round(100 * sweep_frames.CONFIDENCE)
        band = f"band: {level} % t interval at each point, population of seeds, {seeds}"
    points = ("○ hot learning rate", "◆ decayed: only these decide", "┃ interval of the verdict")
    return "\u2003".join(("up: the variant is better", *points, band))


def _tooltips() -> list[alt.Tooltip]:
    return [
        *[alt.Tooltip(f"{name}:N") for name in ("variant", "phase", "n")],
        alt.Tooltip("tokens:Q", format=".4~s"),
        *[alt.Tooltip(f"{name}:Q", format="+.4f") for name in ("mean", "low", "high")],
    ]
