"""The slices of TPUs that can be had. The TPU compiler takes any shape, so a shape is looked up here first.

v5p, v5e, v6e: the tables of docs.cloud.google.com/tpu/docs/{v5p,v5e,v6e}. v4 from memory, inside the rule of
docs.cloud.google.com/tpu/docs/types-topologies: AxBxC, A <= B <= C, all at most 4 or all multiples of 4.
"""

from __future__ import annotations

import math

from harness.core.errors import UserError, nearest

_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_SMALL = ("4x4x4", "4x4x8", "4x8x8", "8x8x8")

SLICES: dict[str, tuple[str, ...]] = {
    "v4": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", *_SMALL, "8x8x16", "8x16x16", "12x12x24", "16x16x16"),
    "v5e": _FLAT,
    "v5p": ("2x2x1", "2x2x2", "2x4x4", *_SMALL, "8x8x16", "8x16x16", "16x16x16", "16x16x24"),
    "v6e": _FLAT,
}
"""Chips along each axis, by kind."""


def chips_of(shape: str) -> int:
    """512 of `8x8x8`. Raises UserError for what is no shape."""
    sides = shape.split("x")
    if not all(side.isdecimal() and int(side) for side in sides):
        raise UserError(f"topology={shape}: no numbers of chips with an x between, such as 8x8x8")
    return math.prod(map(int, sides))


def slice_for(kind: str, chips: int) -> str:
    """The topology of so many chips, such as `v5p:8x8x8`. Raises UserError where there is none."""
    for shape in _shapes(kind):
        if chips_of(shape) == chips:
            return f"{kind}:{shape}"
    raise UserError(f"no slice of {kind} has {chips:,} chips; nearest is {_nearest(kind, chips)}")


def check_slice(topology: str) -> None:
    """Raises UserError for a topology such as `v5p:8x8x8` that cannot be had."""
    kind, _, shape = topology.partition(":")
    if shape not in _shapes(kind):
        raise UserError(
            f"topology={topology}: no such slice of {kind} can be had;"
            f" nearest is {_nearest(kind, chips_of(shape))}"
        )


def _shapes(kind: str) -> tuple[str, ...]:
    if kind not in SLICES:
        raise UserError(f"topology={kind}: no slices of such a TPU are known; {nearest(kind, SLICES)}")
    return SLICES[kind]


def _nearest(kind: str, chips: int) -> str:
    """By the ratio of chips; of two as near, the larger."""
    best = min(SLICES[kind], key=lambda shape: (abs(math.log(chips_of(shape) / chips)), -chips_of(shape)))
    return f"{kind}:{best} ({chips_of(best):,} chips)"
