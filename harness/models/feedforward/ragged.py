"""Products of rows that are sorted by expert with the matrices of their experts, each row once.

On a TPU megablox computes them, a Pallas kernel in JAX (MegaBlocks, arXiv:2211.15841). `jax.lax.ragged_dot`
is not used: its gradient of the weights, and on a GPU all of it, multiplies every row with every expert and
masks (compiled for a v5p and an H100 at 8,192 rows and 8 experts: 3.3 and 8 times the FLOPs).
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array

from harness.models.kernels import KernelChoice, choose_kernel
from harness.models.mechanism import LayerContext

PART, MEGABLOX = "experts", "megablox"
ROW_TILE, LARGEST_TILE = 128, 512
"""Rows of the smallest tile, and the largest size of a tile along each axis of a product."""


def choose_experts(context: LayerContext) -> KernelChoice:
    """Return the kernel of a layer whose dispatch drops nothing. Raises UserError if the config asks for one
    that this platform lacks."""
    platform, lacks = context.target.platform, ""
    if platform == "cuda":
        lacks = "on cuda JAX has no product of experts that multiplies each row once"
    elif platform != "tpu":
        lacks = f"cluster.platform={platform} has no fused product of experts here"
    return choose_kernel(context.target, PART, MEGABLOX, lacks)


def padded_rows(assignments: int) -> int:
    """Return the rows of so many assignments: a multiple of ROW_TILE."""
    return math.ceil(assignments / ROW_TILE) * ROW_TILE


def computed_rows(assignments: int, experts: int) -> int:
    """Return the most rows that are multiplied: a tile with rows of two experts counts for both."""
    rows = padded_rows(assignments)
    return rows + (experts - 1) * math.gcd(rows, LARGEST_TILE)


def ragged_matmul(x_RI: Array, weight_EIO: Array, rows_E: Array, interpret: bool) -> Array:
    """Compute x @ weight, the first rows with the first expert's matrix, from float32 weights; their gradient
    is float32. `rows_E` sums to R, a multiple of ROW_TILE. `interpret` runs it on a CPU."""
    return _matmul(x_RI, weight_EIO, rows_E, interpret)


def _matmul_primal(x_RI: Array, weight_EIO: Array, rows_E: Array, interpret: bool) -> Array:
    return _forward(x_RI, weight_EIO, rows_E, interpret)[0]


_matmul = jax.custom_vjp(_matmul_primal, nondiff_argnums=(3,))


def _forward(
    x_RI: Array, weight_EIO: Array, rows_E: Array, interpret: bool
) -> tuple[Array, tuple[Array, Array, Array]]:
    # Imported where a TPU is meant: it takes longer than the rest of this package.
    from jax.experimental.pallas.ops.tpu.megablox.gmm import gmm

    weight_EIO = weight_EIO.astype(x_RI.dtype)
    tiles = _tiles(len(x_RI), *weight_EIO.shape[1:])
    y_RO = gmm(x_RI, weight_EIO, rows_E, x_RI.dtype, tiles, interpret=interpret)
    return y_RO, (x_RI, weight_EIO, rows_E)


def _backward(
    interpret: bool, residuals: tuple[Array, Array, Array], dy_RO: Array
) -> tuple[Array, Array, None]:
    from jax.experimental.pallas.ops.tpu.megablox.gmm import gmm, tgmm

    x_RI, weight_EIO, rows_E = residuals
    (R, inputs), outputs = x_RI.shape, dy_RO.shape[1]
    dx_RI = gmm(
        dy_RO,
        weight_EIO,
        rows_E,
        x_RI.dtype,
        _tiles(R, outputs, inputs),
        transpose_rhs=True,
        interpret=interpret,
    )
    tiles = _tiles(R, inputs, outputs)
    dweight_EIO = tgmm(x_RI.T, dy_RO, rows_E, jnp.float32, tiles, interpret=interpret)
    return dx_RI, dweight_EIO, None


_matmul.defvjp(_forward, _backward)


def _tiles(rows: int, inputs: int, outputs: int) -> tuple[int, int, int]:
    return math.gcd(rows, LARGEST_TILE), min(inputs, LARGEST_TILE), min(outputs, LARGEST_TILE)
