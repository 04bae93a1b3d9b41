"""Drawings of docs/concepts.md: `python -m docs.site.pictures` writes them into docs/."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

INK, PALE, CONTROL, TREATMENT = "#374151", "#9ca3af", "#2563eb", "#ea580c"
FONT = "font-family='system-ui, sans-serif'"
Point = tuple[float, float]


def draw_blocks() -> str:
    """Return a sweep of three scales, two variants and three seeds as a grid, with its words beside it."""
    parts = []
    for column, scale in enumerate(("xs", "s", "m")):
        left, size = 70 + 170 * column, 22 + 8 * column
        parts.append(_text((left + 45, 234), f"scale {scale}", bold=True))
        for row in range(3):
            middle = 60 + 60 * row
            parts += [
                _box((left + 20 - size / 2, middle - size / 2), (size, size), CONTROL),
                _box((left + 70 - size / 2, middle - size / 2), (size, size), TREATMENT),
            ]
            if column == 0:
                parts.append(_text((left - 28, middle + 5), f"seed {row}"))
    parts.append(_box((403, 33), (104, 54), "none", stroke=INK))
    parts += [
        _text((545, 55), "block: one scale, one seed, the same tokens;", "start"),
        _text((545, 73), "only the variant differs", "start"),
        _box((545, 105), (14, 14), CONTROL),
        _text((567, 117), "run of the control", "start"),
        _box((545, 129), (14, 14), TREATMENT),
        _text((567, 141), "run of a treatment", "start"),
        _text((545, 177), "pair: a control and a treatment of one block", "start"),
        *_arrow((70, 252), (545, 252), INK),
        _text((308, 272), "ladder: more parameters, more tokens"),
    ]
    return _page((930, 285), parts)


def draw_multiplier() -> str:
    """Return two loss curves with the distance between them along the tokens, which is k."""
    multiplier, budget = 1.5, 0.62

    def height(tokens: float) -> float:
        return 40 + 420 * (1 - math.exp(-1.6 * tokens)) / 2

    def across(tokens: float) -> float:
        return 60 + 560 * tokens

    tokens = [0.04 + 0.96 * step / 100 for step in range(101)]
    control = [(across(t), height(t)) for t in tokens]
    treatment = [(across(t), height(multiplier * t)) for t in tokens if t <= budget]
    end, same = (across(budget), height(multiplier * budget)), (across(multiplier * budget), 0.0)
    parts = [
        _curve(control, CONTROL),
        _curve(treatment, TREATMENT),
        *_arrow((end[0] + 7, end[1]), (same[0], end[1]), INK),
        _dot(end, TREATMENT),
        _dot((same[0], end[1]), CONTROL),
        _line(end, (end[0], 262), PALE),
        _line((same[0], end[1]), (same[0], 262), PALE),
        _text((end[0], 282), "D tokens"),
        _text((same[0], 282), "k times D"),
        _text(((end[0] + same[0]) / 2, end[1] + 20), "the same loss"),
        _text((112, 150), "treatment", colour=TREATMENT),
        _text((250, 95), "control", colour=CONTROL),
        *_arrow((60, 262), (650, 262), INK),
        *_arrow((60, 262), (60, 25), INK),
        _text((62, 16), "held-out loss", "start"),
        _text((655, 266), "tokens", "start"),
    ]
    return _page((720, 295), parts)


def _page(size: Point, parts: Sequence[str]) -> str:
    width, height = size
    head = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width:g} {height:g}' width='{width:g}'>"
    return "\n".join(
        [head, f"<rect width='{width:g}' height='{height:g}' fill='#ffffff'/>", *parts, "</svg>\n"]
    )


def _text(at: Point, text: str, anchor: str = "middle", *, bold: bool = False, colour: str = INK) -> str:
    weight = "font-weight='600' " if bold else ""
    place = f"x='{at[0]:.1f}' y='{at[1]:.1f}' text-anchor='{anchor}'"
    return f"<text {place} {FONT} font-size='15' {weight}fill='{colour}'>{text}</text>"


def _box(corner: Point, size: Point, fill: str, stroke: str = "none") -> str:
    place = f"x='{corner[0]:.1f}' y='{corner[1]:.1f}' width='{size[0]:.1f}' height='{size[1]:.1f}'"
    return f"<rect {place} rx='4' fill='{fill}' stroke='{stroke}' stroke-width='1.5'/>"


def _dot(at: Point, fill: str) -> str:
    return f"<circle cx='{at[0]:.1f}' cy='{at[1]:.1f}' r='5' fill='{fill}'/>"


def _curve(points: Sequence[Point], stroke: str) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f"<polyline points='{path}' fill='none' stroke='{stroke}' stroke-width='2.5'/>"


def _line(start: Point, end: Point, stroke: str) -> str:
    ends = f"x1='{start[0]:.1f}' y1='{start[1]:.1f}' x2='{end[0]:.1f}' y2='{end[1]:.1f}'"
    return f"<line {ends} stroke='{stroke}' stroke-width='1.5' stroke-dasharray='4 4'/>"


def _arrow(start: Point, end: Point, stroke: str) -> Iterator[str]:
    """Yield the line and the head of an arrow."""
    angle = math.atan2(end[1] - start[1], end[0] - start[0])
    wings = [
        (end[0] - 9 * math.cos(angle + turn), end[1] - 9 * math.sin(angle + turn)) for turn in (0.45, -0.45)
    ]
    yield _curve([start, end], stroke).replace("2.5", "1.5")
    yield _curve([wings[0], end, wings[1]], stroke).replace("2.5", "1.5")


PICTURES = {"concept_block.svg": draw_blocks, "concept_k.svg": draw_multiplier}

if __name__ == "__main__":
    for file, draw in PICTURES.items():
        (Path(__file__).parents[1] / file).write_text(draw(), encoding="utf-8")
