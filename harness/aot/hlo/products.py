"""FLOPs of matrix products, in the three ways that compilers write them: dot, convolution, library call.

A multiplication and an addition count as two, as in `harness.models.flops`.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache

from harness.aot.hlo.shapes import dimensions
from harness.aot.hlo.text import Computation, Instruction

LIBRARY_PRODUCTS = re.compile(r"__cublas\$(?:lt\$)?(?:gemm|matmul)")
"""Custom calls of cuBLAS and cuBLASLt that multiply the first operand with the second."""

_CONTRACTED = re.compile(r'"lhs_contracting_dimensions":\[([^\]]*)\]')
_WINDOW = re.compile(r"\bwindow=\{([^}]*)\}")


def dot_flops(computation: Computation, dot: Instruction) -> float:
    """Of `dot`: two times the result's elements (batch dimensions are in it) times the contracted sizes."""
    return _contraction(computation, dot, dot.numbers("lhs_contracting_dims"))


def library_flops(computation: Computation, call: Instruction) -> float:
    """Of a custom call that LIBRARY_PRODUCTS matches; its result may stand in a tuple with workspace."""
    found = _CONTRACTED.search(call.attributes)
    contracted = found[1].replace('"', "").split(",") if found else []
    return _contraction(computation, call, [int(axis) for axis in contracted if axis])


def _contraction(computation: Computation, product: Instruction, contracted: list[int]) -> float:
    left = dimensions(computation.operand(product, 0).shape)
    return 2.0 * math.prod(dimensions(product.shape)) * math.prod(left[axis] for axis in contracted)


def convolution_flops(computation: Computation, convolution: Instruction) -> float:
    """Of `convolution`: the taps that meet an element of the input, neither padding nor the holes of a
    dilation. A TPU writes a dot as a convolution, its batch dimensions as a window that meets one element
    at each position. Groups of features and of batches are in the sizes of kernel and result."""
    labels, kernel_labels, result_labels = re.split("_|->", convolution.word("dim_labels"))
    inputs = dimensions(computation.operand(convolution, 0).shape)
    kernel = dimensions(computation.operand(convolution, 1).shape)
    result = dimensions(convolution.shape)
    window = _window(convolution)
    taps = 1
    for axis in range(len(labels) - 2):
        given = {key: values[axis] for key, values in window.items()}
        taps *= _taps(
            inputs[labels.index(str(axis))],
            kernel[kernel_labels.index(str(axis))],
            result[result_labels.index(str(axis))],
            int(given.get("stride", 1)),
            int(given.get("pad", "0_0").split("_")[0]),
            int(given.get("lhs_dilate", 1)),
            int(given.get("rhs_dilate", 1)),
        )
    outer = result[result_labels.index("b")] * result[result_labels.index("f")]
    return 2.0 * outer * kernel[kernel_labels.index("i")] * taps


def _window(convolution: Instruction) -> dict[str, list[str]]:
    """Of `{size=3x3 pad=1_1x1_1}`: by key one text for each spatial dimension."""
    found = _WINDOW.search(convolution.attributes)
    pairs = (item.split("=") for item in found[1].split()) if found else ()
    return {key: values.split("x") for key, values in pairs}


@lru_cache(maxsize=4096)
def _taps(inputs: int, kernel: int, results: int, stride: int, pad: int, hole: int, dilation: int) -> int:
    """Pairs of a result position o and a kernel position k whose place `o stride + k dilation - pad` in the
    input, spread out by `hole`, holds an element."""
    common = math.gcd(stride, hole)
    period = hole // common
    inverse = pow(stride // common, -1, period) if period > 1 else 0
    total = 0
    for k in range(kernel):
        offset = k * dilation - pad
        if offset % common:
            continue
        first = max(0, -(offset // stride))
        last = min(results - 1, ((inputs - 1) * hole - offset) // stride)
        phase = (-(offset // common) * inverse) % period
        total += max(0, (last - phase) // period - (first - 1 - phase) // period)
    return total
