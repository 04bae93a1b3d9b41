"""Elements and bytes of shapes as HLO writes them, such as `(bf16[8,128]{1,0:T(8,128)(2,1)}, u32[])`."""

from __future__ import annotations

import math
import re

from harness.core.errors import UserError

_ARRAY = re.compile(r"\b([a-z][a-z0-9]*)\[([\d,<=]*)\]")
_BITS = re.compile(r"(?:bf|[sucf])(\d+)")
_UNUSUAL = {"pred": 8, "token": 0, "opaque": 0}


def arrays(shape: str) -> list[tuple[str, tuple[int, ...]]]:
    """Element type and dimensions of each array of a shape; of a dynamic dimension its bound."""
    return [
        (element, tuple(int(size.lstrip("<=")) for size in sizes.split(",") if size))
        for element, sizes in _ARRAY.findall(shape)
    ]


def dimensions(shape: str) -> tuple[int, ...]:
    """Of an array, or of the first array of a tuple."""
    return arrays(shape)[0][1]


def size(shape: str) -> float:
    """Bytes of all arrays of a shape without padding; 4-bit elements take half a byte, `pred` a whole one."""
    return sum(math.prod(sizes) * bits(element) / 8 for element, sizes in arrays(shape))


def bits(element: str) -> int:
    """Of an element type such as `bf16`, `f8e4m3fn`, `s4`, `pred`. Raises UserError for an unknown one."""
    if element in _UNUSUAL:
        return _UNUSUAL[element]
    found = _BITS.match(element)
    if not found:
        raise UserError(f"the compiler's text has elements of type '{element}', whose size is not known here")
    return int(found[1])
