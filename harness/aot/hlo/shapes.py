"""Elements and bytes of HLO shapes, such as `(bf16[8,128]{1,0:T(8,128)(2,1)}, u32[])`."""

from __future__ import annotations

import math
import re

from harness.core.errors import UserError

_ARRAY = re.compile(r"\b([a-z][a-z0-9]*)\[([\d,<=]*)\]")
_BITS = re.compile(r"(?:bf|[sucf])(\d+)")
_UNUSUAL = {"pred": 8, "token": 0, "opaque": 0}


def arrays(shape: str) -> list[tuple[str, tuple[int, ...]]]:
    """Return element type and dimensions of each array of a shape. A dynamic dimension gives its bound."""
    return [
        (element, tuple(int(size.lstrip("<=")) for size in sizes.split(",") if size))
        for element, sizes in _ARRAY.findall(shape)
    ]


def dimensions(shape: str) -> tuple[int, ...]:
    """Return the dimensions of an array, or of the first array of a tuple."""
    return arrays(shape)[0][1]


def num_bytes(shape: str) -> float:
    """Return the bytes of all arrays of a shape, without padding. A 4-bit element takes half a byte, `pred`
    one byte."""
    return sum(math.prod(sizes) * element_bits(element) / 8 for element, sizes in arrays(shape))


def element_bits(element: str) -> int:
    """Return the bits of an element type such as `bf16`, `f8e4m3fn`, `s4`. Raises UserError if unknown."""
    if element in _UNUSUAL:
        return _UNUSUAL[element]
    match = _BITS.match(element)
    if not match:
        raise UserError(f"the compiler's text has elements of type '{element}', whose size is unknown")
    return int(match[1])
