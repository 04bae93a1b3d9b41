"""Comparison of two checkpoints in a terminal and as one picture."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from rich.console import Console
from rich.text import Text

from harness.compare.checkpoints.diff_types import CheckpointDiff, LossRow
from harness.compare.checkpoints.distances import param_group
from harness.core.number_format import format_percent, plain_text
from harness.report.charts import marks
from harness.report.charts.marks import ChartLayer
from harness.report.charts.save_images import write_picture
from harness.report.tables import checkpoint_diff as tables
from harness.report.tables.terminal import print_line, print_table

HISTOGRAM_BINS, MIN_BIN_WIDTH = 30, 1e-6
"""Approximate number of bins, and width of a bin if all examples have the same difference."""
PANEL_WIDTH, LABEL_HEIGHT = 400, 19
"""Pixels of the width of one of two panels side by side, and of a row of the weights panel."""


def print_diff(diff: CheckpointDiff, console: Console) -> None:
    """Print a summary in sentences, then the tables."""
    console.print(Text(f"\n{tables.headline(diff)}", style="bold"))
    for sentence in tables.summary(diff):
        print_line(console, sentence)
    function = diff.function
    print_table(console, "The two checkpoints", tables.sides(diff))
    print_table(console, "Weights: how far b is from a", tables.weights(diff.weights))
    print_table(console, "Weights on one side only, or of another shape", tables.one_sided(diff.weights))
    if function.probe:
        sequences = f"the first {function.probe[0].sequences} held-out sequences of each domain"
        title = f"Next token: distributions on {sequences}"
        print_table(console, title, tables.next_token_table(function.probe))
    losses = tables.losses(function.losses, function.overall)
    print_table(console, "Loss by held-out sequence (nats a token)", losses)
    title = f"Along the run: distance from step {min(diff.a.step, diff.b.step)}"
    print_table(console, title, tables.distance_table(diff.along))
    if diff.divergence:
        distances = tables.distance_table(diff.divergence.checkpoints)
        print_table(console, "Shared weights at equal steps", distances)
    if diff.notes:
        console.print(Text("\nNotes", style="bold"))
    for note in diff.notes:
        print_line(console, plain_text(note))


def write_diff_pictures(diff: CheckpointDiff, folder: Path) -> list[Path]:
    """Write `diff_<a>_<b>.svg` and `.png` into a folder and return the paths."""
    return write_picture(diff_chart(diff).to_dict(), folder, picture_name(diff))


def picture_name(diff: CheckpointDiff) -> str:
    """Return a file name such as `diff_xs-mha-seed0-122_xs-hybrid-seed0-122`."""
    return "diff_" + "_".join(re.sub(r"[^\w.]+", "-", side.name) for side in (diff.a, diff.b))


def diff_chart(diff: CheckpointDiff) -> alt.VConcatChart:
    """Draw weights by parameter, beside them domains and steps, and below the losses by sequence."""
    beside = [chart for chart in (_kl_chart(diff), _distance_over_steps(diff)) if chart is not None]
    above = [_weight_chart(diff), *([alt.vconcat(*beside, spacing=26)] if beside else [])]
    histograms = [_loss_histograms(diff.function.losses)] if diff.function.losses else []
    title = alt.TitleParams(tables.headline(diff), offset=16, fontSize=15)
    return alt.vconcat(alt.hconcat(*above, spacing=44), *histograms, spacing=30).properties(title=title)


def _weight_chart(diff: CheckpointDiff) -> alt.LayerChart:
    """Draw a dot per layer, and a bar for all layers of a parameter together."""
    rows = _weight_rows(diff)
    order = rows["label"].unique(maintain_order=True).to_list()
    base = alt.Chart().encode(
        x=alt.X("value:Q").axis(title="||b − a|| / ||a||", tickCount=5).scale(domainMin=0, nice=True),
        y=alt.Y("label:N").sort(order).axis(title=None, grid=True, labelLimit=230),
        color=_side_color(),
    )
    bars = base.mark_tick(thickness=3, size=13, opacity=1)
    dots = base.mark_point(size=30, filled=True, opacity=0.5)
    layers = [ChartLayer("pooled", bars, "value"), ChartLayer("layer", dots, "value")]
    legend = "bar: all layers together, dot: a layer" if rows.filter(kind="layer").height else ""
    title = _title("Weights: distance of b from a", legend)
    return _panel(layers, rows).properties(height=LABEL_HEIGHT * len(order), title=title)


def _weight_rows(diff: CheckpointDiff) -> pl.DataFrame:
    """Return rows of `kind` pooled | layer; a parameter of a single layer has only a pooled row."""
    pooled = [(row.kind, row.distance.relative) for row in diff.weights.kinds]
    layered_kinds = {row.kind for row in diff.weights.kinds if row.layers > 1}
    layers = [(param_group(row.path), row.distance.relative) for row in diff.weights.rows]
    return _frame(
        [("pooled", "b", tables.label(name), value) for name, value in pooled]
        + [("pooled", "b", "all shared", diff.weights.total.relative)]
        + [("layer", "b", tables.label(name), value) for name, value in layers if name in layered_kinds]
    )


def _kl_chart(diff: CheckpointDiff) -> alt.LayerChart | None:
    """Draw both KL divergences of each domain; its name holds the share of tokens with equal first choice."""
    bars = [
        ("kl", side, plain_text(f"{row.domain} ({format_percent(row.agreement)})"), value)
        for row in diff.function.probe
        for side, value in (("a", row.kl_ab), ("b", row.kl_ba))
    ]
    rows = _frame(bars)
    if not rows["value"].count():
        return None
    base = alt.Chart().encode(
        x=alt.X("value:Q").axis(title="KL divergence (nats a token)", tickCount=5).scale(domainMin=0),
        y=alt.Y("label:N").axis(title=None, labelLimit=230).scale(paddingInner=0.35),
        yOffset="variant:N",
        color=_side_color(),
    )
    legend = "upper: KL(a||b), lower: KL(b||a), in brackets: same first choice"
    panel = _panel([ChartLayer("kl", base.mark_bar(), "value")], rows)
    return panel.properties(height=34 * len(diff.function.probe), title=_title("Next token", legend))


def _distance_over_steps(diff: CheckpointDiff) -> alt.LayerChart | None:
    """Draw the distance at each checkpoint: from the first of one run, or between two runs."""
    steps = diff.along or (diff.divergence.checkpoints if diff.divergence else ())
    if len(steps) < 2:
        return None
    rows = _frame([("step", "b", "", point.distance.relative) for point in steps])
    rows = rows.with_columns(step=pl.Series([point.step for point in steps]))
    x = alt.X("step:Q").axis(title="step", tickCount=5, grid=False, format="~s")
    base = alt.Chart().encode(
        x=x.scale(nice=False, padding=8),
        y=alt.Y("value:Q").axis(title="||b − a|| / ||a||", tickCount=4).scale(domainMin=0),
        color=_side_color(),
    )
    line = base.mark_line(strokeWidth=1.7, point={"size": 45})
    since = f"Weights since step {min(diff.a.step, diff.b.step)}"
    title = _title(since if diff.along else "Shared weights at equal steps", "")
    return _panel([ChartLayer("step", line, "value")], rows).properties(height=120, title=title)


def _loss_histograms(losses: tuple[LossRow, ...]) -> alt.FacetChart:
    """Draw the differences by sequence, one panel per domain, with their mean and its interval."""
    rows = histogram_rows(losses)
    title = "loss of b − loss of a (nats a token)"
    x = alt.X("low:Q").axis(title=title, labelExpr=marks.SIGNED_TICKS, tickCount=6)
    count, color = alt.Y("value:Q").axis(title="held-out sequences", tickCount=4), _side_color()
    bars = alt.Chart().mark_rect(opacity=0.6).encode(x=x, x2="high:Q", y=count, y2=alt.datum(0), color=color)
    rule = alt.Chart().mark_rule(strokeWidth=2.6).encode(x=x, x2="high:Q", y=count)
    mean = alt.Chart().mark_point(size=70, filled=True, opacity=1).encode(x="mean:Q", y=count, color=color)
    zero = alt.Chart(alt.Data(values=[{"x": 0}])).mark_rule(style="reference").encode(x="x:Q")
    kinds = [
        ChartLayer("bar", bars, "value"),
        ChartLayer("effect", rule, "low"),
        ChartLayer("effect", mean, "mean"),
    ]
    layers = [zero, *marks.non_empty_layers(kinds, rows)]
    order = [plain_text(row.domain) for row in losses]
    chart = marks.small_multiples(layers, "label", order, rows, height=150, own_y=True)
    interval = "mean, 95 % interval over sequences (these two networks only)"
    title = _title("Loss by held-out sequence", f"left of 0: b is better; dot and line: {interval}")
    return chart.properties(title=title)


def histogram_rows(losses: tuple[LossRow, ...]) -> pl.DataFrame:
    """Return rows of `kind` bar (the count from low to high; zero is an edge) and effect (mean, interval)."""
    deltas = np.concatenate([row.deltas for row in losses])
    width = float(np.ptp(deltas[np.isfinite(deltas)])) / HISTOGRAM_BINS if np.isfinite(deltas).any() else 0.0
    return pl.concat([_histogram(row, width or MIN_BIN_WIDTH) for row in losses])


def _histogram(row: LossRow, width: float) -> pl.DataFrame:
    deltas = np.array(row.deltas)
    bins, counts = np.unique(np.floor(deltas[np.isfinite(deltas)] / width), return_counts=True)
    label = plain_text(row.domain)
    bars = [
        ("bar", "b" if at < 0 else "a", label, at * width, (at + 1) * width, None, float(count))
        for at, count in zip(bins.tolist(), counts.tolist(), strict=True)
    ]
    delta, side = row.delta, "b" if (row.delta.mean or 0) < 0 else "a"
    effect = ("effect", side, label, delta.low, delta.high, delta.mean, 1.1 * counts.max(initial=1))
    texts, numbers = ("kind", "variant", "label"), ("low", "high", "mean", "value")
    schema: dict[str, Any] = dict.fromkeys(texts, pl.String) | dict.fromkeys(numbers, pl.Float64)
    return pl.DataFrame([*bars, effect], schema=schema, orient="row")


def _panel(layers: Iterable[ChartLayer], rows: pl.DataFrame) -> alt.LayerChart:
    """Lay the layers that have data over each other in a panel of half width."""
    charts = [*marks.non_empty_layers(layers, rows)]
    return alt.LayerChart(layer=charts, data=marks.inline_csv(rows), width=PANEL_WIDTH)


def _frame(rows: Sequence[tuple[str, str, str, float | None]]) -> pl.DataFrame:
    """Make a frame of the columns `kind`, `variant` (a or b, for the colour), `label`, `value`."""
    schema = {"kind": pl.String, "variant": pl.String, "label": pl.String, "value": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _side_color() -> alt.Color:
    """Return the colour encoding: a as the control, b as the first treatment."""
    return alt.Color("variant:N").scale(domain=["a", "b"]).legend(None)


def _title(text: str, legend: str) -> alt.TitleParams:
    return alt.TitleParams(text, subtitle=legend or alt.Undefined, frame="group", offset=8)
