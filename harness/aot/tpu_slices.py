"""TPU slices that are offered. The TPU compiler accepts any shape, so shapes are checked here first.

v5p, v5e, v6e: the tables of docs.cloud.google.com/tpu/docs/{v5p,v5e,v6e}. v4 from memory, within the rule of
docs.cloud.google.com/tpu/docs/types-topologies: AxBxC, A <= B <= C, all at most 4 or all multiples of 4.
"""

from __future__ import annotations

import math

from harness.core.errors import UserError, did_you_mean

_SHAPES_2D = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_SHAPES_3D = ("4x4x4", "4x4x8", "4x8x8", "8x8x8")

SLICES: dict[str, tuple[str, ...]] = {
    "v4": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", *_SHAPES_3D, "8x8x16", "8x16x16", "12x12x24", "16x16x16"),
    "v5e": _SHAPES_2D,
    "v5p": ("2x2x1", "2x2x2", "2x4x4", *_SHAPES_3D, "8x8x16", "8x16x16", "16x16x16", "16x16x24"),
    "v6e": _SHAPES_2D,
}
"""Shapes (chips along each axis) by TPU kind."""


def num_chips(shape: str) -> int:
    """Return the number of chips of a shape: 512 for `8x8x8`. Raises UserError for a malformed shape."""
    sides = shape.split("x")
    if not all(side.isdecimal() and int(side) for side in sides):
        raise UserError(f"topology={shape} is not a shape. Write chip counts joined by x, such as 8x8x8.")
    return math.prod(map(int, sides))


def slice_for(kind: str, chips: int) -> str:
    """Return the topology with this many chips, such as `v5p:8x8x8`. Raises UserError if none has."""
    for shape in _shapes(kind):
        if num_chips(shape) == chips:
            return f"{kind}:{shape}"
    raise UserError(f"no slice of {kind} has {chips:,} chips; the nearest is {_nearest_slice(kind, chips)}")


def check_slice(topology: str) -> None:
    """Raise UserError if a topology, such as `v5p:8x8x8`, is not offered."""
    kind, _, shape = topology.partition(":")
    if shape not in _shapes(kind):
        nearest = _nearest_slice(kind, num_chips(shape))
        raise UserError(f"topology={topology}: {kind} has no slice of this shape; the nearest is {nearest}")


def _shapes(kind: str) -> tuple[str, ...]:
    if kind not in SLICES:
        raise UserError(f"topology={kind} is not a known TPU kind; {did_you_mean(kind, SLICES)}")
    return SLICES[kind]


def _nearest_slice(kind: str, chips: int) -> str:
    """Return the slice whose chip count has the ratio nearest to 1, the larger of two equally near."""
    best = min(SLICES[kind], key=lambda shape: (abs(math.log(num_chips(shape) / chips)), -num_chips(shape)))
    return f"{kind}:{best} ({num_chips(best):,} chips)"
