"""Who has the chips: a rectangle a run, by kind, each as large as its share of the machine."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import altair as alt
import polars as pl

from harness.core import number_format
from harness.records.sweep.plan_file import ChipShare
from harness.report.charts.marks import WIDTH, inline_csv
from harness.report.charts.treemap import Box, squarify
from harness.report.frames.saved_plan import KeptPlan, Row
from harness.report.tables import wording

HEIGHT = 360
HEAD = 40
"""Pixels above the rectangles of a kind, for its name."""
APART = 10
"""Pixels between kinds."""
LETTER, LINE = 7.2, 15
"""Pixels that a letter of a name takes at most, and a line of it."""
LETTERS = 11
"""Pixels that letters are high."""
EDGE = 6
"""Pixels between a rectangle's edge and its name."""
KEYS = 12
"""Runs without room for a name that are named in the key."""
TOLD = 150
"""Letters of a line of the key."""


@dataclass(frozen=True)
class Piece:
    """Part of the machine."""

    box: Box
    """Pixels."""
    state: str
    """in use | given, not in use | given to no run"""
    chips: int
    kind: str
    run: Row | None = None


USED, SPARE, FREE = "in use", "given, not in use", "given to no run"
MEANINGS = {SPARE: "Faint: given to a run whose layout uses fewer.", FREE: "Outlined: given to none."}


def partition(plan: KeptPlan, variants: Sequence[str]) -> alt.LayerChart | None:
    """None on this machine, on which runs follow each other."""
    if not plan.shares:
        return None
    pieces = pieces_of(plan)
    chips, free = (
        sum(piece.chips for piece in pieces if not only or piece.state == only) for only in ("", FREE)
    )
    held = len({piece.run.name for piece in pieces if piece.run})
    said = f"{chips - free:,} of {chips:,} chips of {plan.machine} given to {wording.run_count(held)}"
    if waiting := len(plan.rows) - held:
        said += f" at first; {waiting} more take turns on them"
    named, keys = _names(pieces)
    table = pl.concat([_boxes(pieces), named, _heads(plan.shares)], how="diagonal_relaxed")
    states = {piece.state for piece in pieces if piece.chips}
    lines = [" ".join(said for state, said in MEANINGS.items() if state in states), *keys]
    chart = _chart(table, variants)
    return chart.properties(
        title=alt.TitleParams(said, subtitle=[*filter(None, lines)], offset=8), width=WIDTH, height=HEIGHT
    )


def pieces_of(plan: KeptPlan) -> list[Piece]:
    """Kinds side by side, each as wide as its share of the chips; in each its runs and what none has."""
    whole, left = sum(share.chips for share in plan.shares), 0.0
    room, found = WIDTH - APART * (len(plan.shares) - 1), []
    for share in plan.shares:
        width = room * share.chips / whole
        found += _of_kind(share, [row for row in plan.rows if row.kind == share.kind], left, width)
        left += width + APART
    return found


def _of_kind(share: ChipShare, rows: Sequence[Row], left: float, width: float) -> Iterator[Piece]:
    rows, free = _first(rows, share.chips)
    amounts = [row.chips for row in rows] + [free] * (free > 0)
    boxes = squarify(amounts, Box(left, HEAD, width, HEIGHT - HEAD))
    for row, box in zip(rows, boxes, strict=False):
        used, spare = box.split(row.devices / row.chips)
        yield Piece(used, USED, row.devices, share.kind, row)
        yield Piece(spare, SPARE, row.chips - row.devices, share.kind, row)
    if free > 0:
        yield Piece(boxes[-1], FREE, free, share.kind)


def _first(rows: Sequence[Row], chips: int) -> tuple[list[Row], int]:
    """Those that begin first, in their order, as many as have room, and the chips that are left. Of runs that
    begin together on the same chips, since one never ends, the first counts."""
    held = []
    for row in rows:
        if not row.begins and 0 < row.chips <= chips:
            held.append(row)
            chips -= row.chips
    return held, chips


def _boxes(pieces: Sequence[Piece]) -> pl.DataFrame:
    """kind (the state), label (run), variant, phase (kind of chips), chips, left, right, top, bottom."""
    records = [
        (piece.state, piece.run.name if piece.run else "", piece.run.variant if piece.run else "", piece.kind,
         piece.chips, piece.box.left, piece.box.right, piece.box.top, piece.box.bottom)
        for piece in pieces
        if piece.chips
    ]  # fmt: skip
    names = ("kind", "label", "variant", "phase", "chips", "left", "right", "top", "bottom")
    return pl.DataFrame(records, schema=[*names], orient="row")


def _names(pieces: Sequence[Piece]) -> tuple[pl.DataFrame, list[str]]:
    """Lines of text in the rectangles; a number where a name has no room, and the key to the numbers."""
    records, keys = [], []
    for used, spare in pairwise(pieces):
        if used.state != USED or used.run is None:
            continue
        box, ink = max((used.box, "name"), (spare.box, "faint name"), key=lambda found: found[0].area)
        if not (lines := _fitting(used.run, box)):
            mark = str(len(keys) + 1)
            lines = [mark] if _fit([mark], box) else []
            keys.append(f"{f'{mark}: ' * bool(lines)}{used.run.name} {used.run.chips:,}")
        records += [
            (ink, line, box.left + EDGE, box.top + _inset(box) + LINE * i) for i, line in enumerate(lines)
        ]
    schema = {"kind": pl.String, "label": pl.String, "left": pl.Float64, "top": pl.Float64}
    if more := keys[KEYS:]:
        keys = [*keys[:KEYS], f"and {len(more)} smaller"]
    told = textwrap.wrap(number_format.plain_text(f"Too small for their names: {'; '.join(keys)}."), TOLD)
    told = told if keys else []
    return pl.DataFrame(records, schema=schema, orient="row"), told


def _fitting(run: Row, box: Box) -> list[str]:
    """Its name and chips in as few lines as the box has room for; none where it has not."""
    chips = f"{run.chips:,}" if run.devices else f"{run.chips:,}: none fits"
    name = number_format.plain_text(run.name)
    ways = [name, chips], [*re.split(r"(?<=/)", name), chips], [*re.split(r"(?<=[/_])", name), chips]
    return next((way for way in ways if _fit(way, box)), [])


def _fit(lines: Sequence[str], box: Box) -> bool:
    wide = max(map(len, lines)) * LETTER + 2 * EDGE
    high = LETTERS + LINE * (len(lines) - 1) + 2 * max(0, _inset(box))
    return wide <= box.width and high <= box.height


def _inset(box: Box) -> float:
    """Pixels above the first line; less in the middle of a flat rectangle."""
    return min(EDGE, (box.height - LETTERS) / 2)


def _heads(shares: Sequence[ChipShare]) -> pl.DataFrame:
    """The names of the kinds above their rectangles, where they have room."""
    whole, left = sum(share.chips for share in shares), 0.0
    room, records = WIDTH - APART * (len(shares) - 1), []
    for share in shares:
        width = room * share.chips / whole
        lines = [share.kind, f"{share.chips:,} {share.chip}"]
        if _fit(lines, Box(left, 0, width, HEAD)):
            records += [("head", line, left, float(LINE * i)) for i, line in enumerate(lines)]
        left += width + APART
    return pl.DataFrame(records, schema=["kind", "label", "left", "top"], orient="row")


def _chart(table: pl.DataFrame, variants: Sequence[str]) -> alt.LayerChart:
    x = alt.X("left:Q").scale(domain=[0, WIDTH], nice=False).axis(None)
    y = alt.Y("top:Q").scale(domain=[0, HEIGHT], nice=False, reverse=True).axis(None)
    base = alt.Chart().encode(x=x, y=y)
    told = [
        alt.Tooltip("label:N", title="run"), alt.Tooltip("chips:Q", format=","), alt.Tooltip("kind:N"),
        alt.Tooltip("phase:N", title="chips of"),
    ]  # fmt: skip
    seen = table["variant"].unique().to_list()
    legend = [name for name in variants if name in seen]
    color = alt.Color("variant:N").scale(domain=[*variants]).legend(values=legend, symbolOpacity=1)
    boxes = base.encode(x2="right:Q", y2="bottom:Q", tooltip=told)
    run = boxes.encode(color=color)
    text = base.mark_text(align="left", baseline="top").encode(text="label:N")
    layers = {
        USED: run.mark_rect(style="edge", strokeWidth=1.5),
        SPARE: run.mark_rect(style="edge", strokeWidth=1.5, opacity=0.35),
        FREE: boxes.mark_rect(style="outline", strokeWidth=1),
        "name": text.mark_text(align="left", baseline="top", style="inside"),
        "faint name": text.mark_text(align="left", baseline="top", style="mark"),
        "head": text,
    }
    here = set(table["kind"])
    layered = [
        chart.transform_filter(alt.datum.kind == kind) for kind, chart in layers.items() if kind in here
    ]
    return alt.LayerChart(layer=layered, data=inline_csv(table))
