"""Treemap of the chips: one rectangle per run, by kind of chip, with the area of its share of the machine."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import altair as alt
import polars as pl

from harness.core.number_format import plain_text
from harness.records.sweep.plan_file import ChipShare
from harness.report.charts.marks import WIDTH, inline_csv
from harness.report.charts.treemap import Box, squarify
from harness.report.frames.saved_plan import PlanRow, SavedPlan
from harness.report.tables import wording

HEIGHT, HEAD_HEIGHT, KIND_GAP = 360, 40, 10
"""Pixels of the chart, of the room for a name above the rectangles of a kind, and between kinds."""
LETTER_WIDTH, LETTER_HEIGHT, LINE_HEIGHT, TEXT_MARGIN = 7.2, 11, 15, 6
"""Pixels of a letter (its width at most), of a line, and between a rectangle's edge and its name."""
MAX_KEYS, LINE_LETTERS = 12, 150
"""Number of runs without room for a name that the key names, at most, and of letters in a line of it."""


@dataclass(frozen=True)
class ChipBox:
    """Rectangle of some chips of the machine, in pixels."""

    box: Box
    state: str
    """State of the chips: in use | given, not in use | given to no run."""
    chips: int
    kind: str
    run: PlanRow | None = None


USED, SPARE, FREE = "in use", "given, not in use", "given to no run"
STATE_MEANINGS = {SPARE: "Faint: given to a run, not used by its layout.", FREE: "Outlined: given to no run."}


def chip_shares_chart(plan: SavedPlan, variants: Sequence[str]) -> alt.LayerChart | None:
    """Draw the chips by run. Returns None for this machine, where runs use the same devices in turn."""
    if not plan.shares:
        return None
    boxes = chip_boxes(plan)
    chips = sum(piece.chips for piece in boxes)
    free = sum(piece.chips for piece in boxes if piece.state == FREE)
    runs = len({piece.run.name for piece in boxes if piece.run})
    title = f"{chips - free:,} of {chips:,} chips of {plan.machine} given to {wording.run_count(runs)}"
    if waiting := len(plan.rows) - runs:
        title += f" at first; {waiting} more take turns on them"
    names, keys = _name_table(boxes)
    table = pl.concat([_box_table(boxes), names, _kind_names(plan.shares)], how="diagonal_relaxed")
    states = {piece.state for piece in boxes if piece.chips}
    lines = [" ".join(text for state, text in STATE_MEANINGS.items() if state in states), *keys]
    heading = alt.TitleParams(title, subtitle=[*filter(None, lines)], offset=8)
    return _chart(table, variants).properties(title=heading, width=WIDTH, height=HEIGHT)


def chip_boxes(plan: SavedPlan) -> list[ChipBox]:
    """Lay out kinds side by side, each as wide as its share of the chips, with its runs and free chips."""
    total, left = sum(share.chips for share in plan.shares), 0.0
    room, boxes = WIDTH - KIND_GAP * (len(plan.shares) - 1), []
    for share in plan.shares:
        width = room * share.chips / total
        boxes += _boxes_of_kind(share, [row for row in plan.rows if row.kind == share.kind], left, width)
        left += width + KIND_GAP
    return boxes


def _boxes_of_kind(share: ChipShare, rows: Sequence[PlanRow], left: float, width: float) -> Iterator[ChipBox]:
    rows, free = _first_runs(rows, share.chips)
    amounts = [row.chips for row in rows] + [free] * (free > 0)
    boxes = squarify(amounts, Box(left, HEAD_HEIGHT, width, HEIGHT - HEAD_HEIGHT))
    for row, box in zip(rows, boxes, strict=False):
        used, spare = box.split(row.devices / row.chips)
        yield ChipBox(used, USED, row.devices, share.kind, row)
        yield ChipBox(spare, SPARE, row.chips - row.devices, share.kind, row)
    if free > 0:
        yield ChipBox(boxes[-1], FREE, free, share.kind)


def _first_runs(rows: Sequence[PlanRow], chips: int) -> tuple[list[PlanRow], int]:
    """Return the runs that begin at once and fit, in their order, and the number of free chips. If runs
    begin together on the same chips, because one never ends, the first counts."""
    fitting = []
    for row in rows:
        if not row.begins and 0 < row.chips <= chips:
            fitting.append(row)
            chips -= row.chips
    return fitting, chips


def _box_table(pieces: Sequence[ChipBox]) -> pl.DataFrame:
    """Build the columns kind (state), label (run), variant, phase (kind of chips), chips, edges in pixels."""
    records = [
        (piece.state, piece.run.name if piece.run else "", piece.run.variant if piece.run else "", piece.kind,
         piece.chips, piece.box.left, piece.box.right, piece.box.top, piece.box.bottom)
        for piece in pieces
        if piece.chips
    ]  # fmt: skip
    names = ("kind", "label", "variant", "phase", "chips", "left", "right", "top", "bottom")
    return pl.DataFrame(records, schema=[*names], orient="row")


def _name_table(pieces: Sequence[ChipBox]) -> tuple[pl.DataFrame, list[str]]:
    """Return the text in the rectangles (a number where a name has no room), and the key of the numbers."""
    records, keys = [], []
    for used, spare in pairwise(pieces):
        if used.state != USED or used.run is None:
            continue
        box, ink = max((used.box, "name"), (spare.box, "faint name"), key=lambda pair: pair[0].area)
        if not (lines := _fitting_lines(used.run, box)):
            mark = str(len(keys) + 1)
            lines = [mark] if _fits([mark], box) else []
            keys.append(f"{f'{mark}: ' * bool(lines)}{used.run.name} {used.run.chips:,}")
        records += [
            (ink, line, box.left + TEXT_MARGIN, box.top + _text_inset(box) + LINE_HEIGHT * i)
            for i, line in enumerate(lines)
        ]
    schema = {"kind": pl.String, "label": pl.String, "left": pl.Float64, "top": pl.Float64}
    if remainder := keys[MAX_KEYS:]:
        keys = [*keys[:MAX_KEYS], f"and {len(remainder)} smaller"]
    key = plain_text(f"Too small for their names: {'; '.join(keys)}.") if keys else ""
    return pl.DataFrame(records, schema=schema, orient="row"), textwrap.wrap(key, LINE_LETTERS)


def _fitting_lines(run: PlanRow, box: Box) -> list[str]:
    """Return the run's name and chips in as few lines as fit into the box; no lines if none fit."""
    chips = f"{run.chips:,}" if run.devices else f"{run.chips:,}: none fits"
    name = plain_text(run.name)
    ways = [name, chips], [*re.split(r"(?<=/)", name), chips], [*re.split(r"(?<=[/_])", name), chips]
    return next((way for way in ways if _fits(way, box)), [])


def _fits(lines: Sequence[str], box: Box) -> bool:
    wide = max(map(len, lines)) * LETTER_WIDTH + 2 * TEXT_MARGIN
    high = LETTER_HEIGHT + LINE_HEIGHT * (len(lines) - 1) + 2 * max(0, _text_inset(box))
    return wide <= box.width and high <= box.height


def _text_inset(box: Box) -> float:
    """Return the pixels above the first line, fewer in a flat rectangle."""
    return min(TEXT_MARGIN, (box.height - LETTER_HEIGHT) / 2)


def _kind_names(shares: Sequence[ChipShare]) -> pl.DataFrame:
    """Return the names of kinds above their rectangles, where they fit."""
    total, left = sum(share.chips for share in shares), 0.0
    room, records = WIDTH - KIND_GAP * (len(shares) - 1), []
    for share in shares:
        width = room * share.chips / total
        lines = [share.kind, f"{share.chips:,} {share.chip}"]
        if _fits(lines, Box(left, 0, width, HEAD_HEIGHT)):
            records += [("head", line, left, float(LINE_HEIGHT * i)) for i, line in enumerate(lines)]
        left += width + KIND_GAP
    return pl.DataFrame(records, schema=["kind", "label", "left", "top"], orient="row")


def _chart(table: pl.DataFrame, variants: Sequence[str]) -> alt.LayerChart:
    x = alt.X("left:Q").scale(domain=[0, WIDTH], nice=False).axis(None)
    y = alt.Y("top:Q").scale(domain=[0, HEIGHT], nice=False, reverse=True).axis(None)
    base = alt.Chart().encode(x=x, y=y)
    tooltips = [
        alt.Tooltip("label:N", title="run"), alt.Tooltip("chips:Q", format=","), alt.Tooltip("kind:N"),
        alt.Tooltip("phase:N", title="chips of"),
    ]  # fmt: skip
    present = table["variant"].unique().to_list()
    legend = [name for name in variants if name in present]
    color = alt.Color("variant:N").scale(domain=[*variants]).legend(values=legend, symbolOpacity=1)
    boxes = base.encode(x2="right:Q", y2="bottom:Q", tooltip=tooltips)
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
    kinds = set(table["kind"])
    present_layers = [(kind, chart) for kind, chart in layers.items() if kind in kinds]
    charts = [chart.transform_filter(alt.datum.kind == kind) for kind, chart in present_layers]
    return alt.LayerChart(layer=charts, data=inline_csv(table))
