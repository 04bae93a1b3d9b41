"""Squarified treemap: rectangles with areas proportional to amounts, as close to squares as possible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass


@dataclass(frozen=True)
class Box:
    """Rectangle with its origin at the top left."""

    left: float
    top: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """Position of the right edge."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """Position of the lower edge."""
        return self.top + self.height

    @property
    def area(self) -> float:
        """Width times height."""
        return self.width * self.height

    def split(self, share: float) -> tuple[Box, Box]:
        """Split across the longer side into two boxes, the first with this share of the area."""
        left, top, width, height = astuple(self)
        if width >= height:
            wide = share * width
            return Box(left, top, wide, height), Box(left + wide, top, width - wide, height)
        high = share * height
        return Box(left, top, width, high), Box(left, top + high, width, height - high)


def squarify(amounts: Sequence[float], box: Box) -> list[Box]:
    """Tile a box with one box per amount, in the order of the amounts, which must be above zero.

    Rows are laid along the shorter side; a row is filled while its worst box gets closer to a square
    (Bruls, Huizing, van Wijk 2000).
    """
    order = sorted(range(len(amounts)), key=lambda i: -amounts[i])
    boxes: list[Box] = [box] * len(amounts)
    while order:
        sizes = [amounts[i] for i in order]
        row = sizes[: _row_length(sizes, box)]
        stacked = box.width >= box.height
        strip, box = box.split(sum(row) / sum(sizes))
        for i, row_box in zip(order, _row_boxes(row, strip, stacked=stacked), strict=False):
            boxes[i] = row_box
        order = order[len(row) :]
    return boxes


def _row_length(amounts: Sequence[float], box: Box) -> int:
    """Return how many of the amounts, sorted from the largest, fill a row along the shorter side."""
    short, scale = min(box.width, box.height), box.area / sum(amounts)
    best = 1
    while best < len(amounts) and (
        _worst_aspect_ratio(amounts[: best + 1], short, scale)
        <= _worst_aspect_ratio(amounts[:best], short, scale)
    ):
        best += 1
    return best


def _worst_aspect_ratio(row: Sequence[float], short: float, scale: float) -> float:
    """Return the largest aspect ratio in a row of this length."""
    depth = scale * sum(row) / short
    sides = [scale * amount / depth for amount in row]
    return max(max(depth / side, side / depth) for side in sides)


def _row_boxes(row: Sequence[float], strip: Box, *, stacked: bool) -> list[Box]:
    """Return the boxes of a row, stacked or side by side."""
    boxes, offset, total = [], 0.0, sum(row)
    for amount in row:
        if stacked:
            top, height = offset / total * strip.height, amount / total * strip.height
            boxes.append(Box(strip.left, strip.top + top, strip.width, height))
        else:
            left, width = offset / total * strip.width, amount / total * strip.width
            boxes.append(Box(strip.left + left, strip.top, width, strip.height))
        offset += amount
    return boxes
