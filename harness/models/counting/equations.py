"""FLOPs of one equation of a jaxpr: products of matrices, convolutions, and factorisations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

WEIGHTS, ACTIVATIONS = "weights", "activations"
"""Groups of products by what rematerialisation with `dots` does: it saves products of two matrices, and
multiplies all others again."""


def equation_flops(equation: Any) -> int | None:
    """Return the FLOPs of a product or factorisation on one device; None for any other equation.

    A product of [M, K] and [K, N] takes 2 M K N, whatever is masked or padded in it. Factorisations count to
    leading order (Golub and Van Loan, Matrix Computations, 4th edition).
    """
    formula = _FORMULAS.get(equation.primitive.name)
    return None if formula is None else formula(equation) // _sharing_devices(equation)


def equation_group(equation: Any) -> str:
    """Return the group of a product."""
    if equation.primitive.name != "dot_general":
        return ACTIVATIONS
    _, (batch_axes, _) = equation.params["dimension_numbers"]
    return ACTIVATIONS if batch_axes else WEIGHTS


def _dot(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    return 2 * _size(equation.invars[0], contracted) * equation.outvars[0].aval.size


def _convolution(equation: Any) -> int:
    """Return 2 x output values x taps x input channels of a group. Zeros between the values of a dilated
    input, as in the gradient of a strided convolution, are no factors."""
    kernel, outputs_axis = equation.invars[1], equation.params["dimension_numbers"].rhs_spec[0]
    per_output = kernel.aval.size // kernel.aval.shape[outputs_axis]
    return 2 * equation.outvars[0].aval.size * per_output // math.prod(equation.params["lhs_dilation"])


def _ragged_dot(equation: Any) -> int:
    """Return 2 x rows x inputs x outputs: each row meets the matrix of its own group."""
    numbers = equation.params["ragged_dot_dimension_numbers"]
    (contracted, _), _ = numbers.dot_dimension_numbers
    flops = 2 * _size(equation.invars[0], contracted) * equation.outvars[0].aval.size
    groups = equation.invars[2].aval.shape[-1]
    return flops // groups if set(numbers.lhs_ragged_dimensions) <= set(contracted) else flops


def _triangular_solve(equation: Any) -> int:
    triangle, values = (operand.aval for operand in equation.invars)
    return values.size * triangle.shape[-1]


def _cholesky(equation: Any) -> int:
    return equation.invars[0].aval.size * equation.invars[0].aval.shape[-1] // 3


def _eigh(equation: Any) -> int:
    """Return 9 n^3 with eigenvectors (section 8.3.5)."""
    return 9 * equation.invars[0].aval.size * equation.invars[0].aval.shape[-1]


def _qr(equation: Any) -> int:
    """Return those of R, 2 k^2 (max(m, n) - k / 3) of k = min(m, n) reflectors, and of Q in full (section
    5.2.2)."""
    *batch, rows, columns = equation.invars[0].aval.shape
    reflectors, q_columns = min(rows, columns), equation.outvars[0].aval.shape[-1]
    thirds = 2 * reflectors**2 * (3 * max(rows, columns) - reflectors)
    thirds += 12 * rows * q_columns * reflectors - 6 * (rows + q_columns) * reflectors**2 + 4 * reflectors**3
    return math.prod(batch) * thirds // 3


_FORMULAS: dict[str, Callable[[Any], int]] = {
    "dot_general": _dot,
    "conv_general_dilated": _convolution,
    "ragged_dot_general": _ragged_dot,
    "triangular_solve": _triangular_solve,
    "cholesky": _cholesky,
    "eigh": _eigh,
    "qr": _qr,
}


def _size(operand: Any, axes: tuple[int, ...]) -> int:
    return math.prod(operand.aval.shape[axis] for axis in axes)


def _sharing_devices(equation: Any) -> int:
    """Return the number of devices that share a product; 1 without a mesh or if shapes are per device."""
    shardings = [operand.aval.sharding for operand in equation.invars]
    entries = [entry for sharding in shardings for entry in sharding.spec if entry]
    axes = {name for entry in entries for name in ((entry,) if isinstance(entry, str) else entry)}
    return math.prod(shardings[0].mesh.shape[name] for name in axes)
