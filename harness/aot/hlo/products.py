"""FLOPs of matrix products in the three forms that compilers emit: dot, convolution, library call.

A multiply-add counts as two FLOPs, as in `harness.models.flops`.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache

from harness.aot.hlo.text import Computation, Instruction, dimensions

LIBRARY_PRODUCTS = re.compile(r"__cublas\$(?:lt\$)?(?:gemm|matmul)")
"""Custom calls of cuBLAS and cuBLASLt that multiply the first operand by the second."""

_CONTRACTING_DIMS = re.compile(r'"lhs_contracting_dimensions":\[([^\]]*)\]')
_WINDOW = re.compile(r"\bwindow=\{([^}]*)\}")


def dot_flops(computation: Computation, dot: Instruction) -> float:
    """Return the FLOPs of a `dot`: 2 x elements of the result (batch included) x contracted sizes."""
    return _contraction_flops(computation, dot, dot.int_list("lhs_contracting_dims"))


def library_flops(computation: Computation, call: Instruction) -> float:
    """Return the FLOPs of a call matching LIBRARY_PRODUCTS. Its result may be in a tuple with workspace."""
    match = _CONTRACTING_DIMS.search(call.attributes)
    contracted = match[1].replace('"', "").split(",") if match else []
    return _contraction_flops(computation, call, [int(axis) for axis in contracted if axis])


def _contraction_flops(computation: Computation, product: Instruction, contracted: list[int]) -> float:
    left = dimensions(computation.operand(product, 0).shape)
    return 2.0 * math.prod(dimensions(product.shape)) * math.prod(left[axis] for axis in contracted)


def convolution_flops(computation: Computation, convolution: Instruction) -> float:
    """Return the FLOPs of a `convolution`, counting only taps on input elements, not on padding or the holes
    of a dilation. A TPU writes a dot as a convolution whose batch dimensions are a window with one tap at
    each position. Feature and batch groups are already in the sizes of kernel and result."""
    labels, kernel_labels, result_labels = re.split("_|->", convolution.text_value("dim_labels"))
    inputs = dimensions(computation.operand(convolution, 0).shape)
    kernel = dimensions(computation.operand(convolution, 1).shape)
    result = dimensions(convolution.shape)
    window = _window(convolution)
    taps = 1
    for axis in range(len(labels) - 2):
        options = {key: values[axis] for key, values in window.items()}
        taps *= _taps(
            inputs[labels.index(str(axis))],
            kernel[kernel_labels.index(str(axis))],
            result[result_labels.index(str(axis))],
            int(options.get("stride", 1)),
            int(options.get("pad", "0_0").split("_")[0]),
            int(options.get("lhs_dilate", 1)),
            int(options.get("rhs_dilate", 1)),
        )
    outer = result[result_labels.index("b")] * result[result_labels.index("f")]
    return 2.0 * outer * kernel[kernel_labels.index("i")] * taps


def _window(convolution: Instruction) -> dict[str, list[str]]:
    """Parse `window={size=3x3 pad=1_1x1_1}` into one string per spatial dimension, by key."""
    match = _WINDOW.search(convolution.attributes)
    pairs = (item.split("=") for item in match[1].split()) if match else ()
    return {key: values.split("x") for key, values in pairs}


@lru_cache(maxsize=4096)
def _taps(inputs: int, kernel: int, results: int, stride: int, pad: int, hole: int, dilation: int) -> int:
    """Count the pairs of a result position o and a kernel position k for which the input, dilated by `hole`,
    has an element at `o stride + k dilation - pad`."""
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
