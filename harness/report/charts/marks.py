"""Parts that all charts share: small multiples, layers that need data, axes, colours, data as CSV.

No mark names a colour (`theme` does), and every text of a config enters a specification as data or
as a JSON string, never as part of a Vega expression.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import altair as alt
import polars as pl

from harness.report.frames.sweep_frames import Frames

WIDTH, GAP, MARGIN = 940, 26, 66
"""Pixels of a row of small multiples, between two of them, and of a y axis."""
COLUMNS = 5
"""Number of small multiples in a row, at most."""
TEXTS = ("scale", "variant", "kind", "phase", "label", "text")
"""Columns that are parsed as text even if they look like numbers."""

COUNT_TICKS = "datum.value == 0 ? '0' : replace(format(datum.value, '~s'), 'G', 'B')"
POWER_TICKS = "datum.value == 0 ? '0' : replace(format(datum.value, '~e'), '+', '')"
SIGNED_TICKS = "datum.value == 0 ? '0' : format(datum.value, '+~r')"
"""Vega expressions that format ticks."""
UP_IS_BETTER, DOWN_IS_BETTER = "better →", "← better"
"""Ends of the title of a y axis, whose text runs upwards: the first arrow points up, the second down."""
AXES = {
    "tokens": ("tokens", COUNT_TICKS),
    "step": ("step", COUNT_TICKS),
    "flops": ("model FLOPs", POWER_TICKS),
    "device_seconds": ("device-seconds", COUNT_TICKS),
}
"""Title and tick format of each quantity that a curve can be drawn over."""


@dataclass(frozen=True)
class ChartLayer:
    """Marks over the rows of one kind, and of some phases if `phases` is not empty."""

    kind: str
    marks: alt.Chart
    needs: str
    """Column that must hold a value: an empty layer has no extent, and Vega warns."""
    phases: tuple[str, ...] = ()


def non_empty_layers(layers: Iterable[ChartLayer], rows: pl.DataFrame) -> Iterator[alt.Chart]:
    """Yield the layers that have data, each filtered to its own rows."""
    for layer in layers:
        layer_rows = rows.filter(kind=layer.kind)
        chart = layer.marks.transform_filter(alt.datum.kind == layer.kind)
        if layer.phases:
            layer_rows = layer_rows.filter(pl.col("phase").is_in(layer.phases))
            chart = chart.transform_filter(alt.FieldOneOfPredicate("phase", list(layer.phases)))
        if layer_rows[layer.needs].count():
            yield chart


def small_multiples(
    layers: Iterable[alt.Chart],
    field: str,
    order: list[str],
    rows: pl.DataFrame,
    *,
    height: int,
    own_y: bool = False,
) -> alt.FacetChart:
    """Facet the layers by `field`, in this order, at equal size. Each panel has its own y scale if `own_y`,
    otherwise its own x scale."""
    lines = math.ceil(len(order) / COLUMNS)
    columns = math.ceil(len(order) / lines)
    gaps = (columns - 1) * (GAP + MARGIN * own_y)
    width = min(440, round((WIDTH - gaps) / columns))
    chart = alt.LayerChart(layer=list(layers)).properties(width=width, height=height)
    header = alt.Header(title=None, labelLimit=width)
    facet = alt.Facet(f"{field}:N", sort=order, header=header)
    panels = chart.facet(facet, columns=columns, data=inline_csv(rows), spacing=GAP)
    return panels.resolve_scale(y="independent") if own_y else panels.resolve_scale(x="independent")


def inline_csv(rows: pl.DataFrame) -> alt.Data:
    """Return the frame as CSV inside the specification, a third of the size of a list of objects.

    Values that are not finite become gaps.
    """
    floats = pl.selectors.float()
    table = rows.with_columns(pl.when(floats.is_finite()).then(floats.round_sig_figs(6)))
    parse = {name: "string" if name in TEXTS else "number" for name in rows.columns}
    return alt.Data(values=table.write_csv(), format=alt.CsvDataFormat(type="csv", parse=parse))


def x_axis(axis: str) -> alt.X:
    """Return the x encoding over one of `AXES`."""
    title, label = AXES[axis]
    x = alt.X(f"{axis}:Q").scale(type="linear", nice=False, padding=6)
    return x.axis(title=title, labelExpr=label, tickCount=5, grid=False)


def variant_color(content: Frames, *, legend: bool = True) -> alt.Color:
    """Return the colour encoding of variants, the same in every chart."""
    encoded = alt.Color("variant:N").scale(domain=content.variants)
    return encoded.legend(symbolOpacity=1, symbolType="stroke") if legend else encoded.legend(None)


def reference_line(y: float) -> alt.Chart:
    """Draw a horizontal reference line."""
    return alt.Chart(alt.Data(values=[{"y": y}])).mark_rule(style="reference").encode(y="y:Q")
