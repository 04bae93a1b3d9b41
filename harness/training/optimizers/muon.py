"""Muon for hidden matrices: orthogonalised momentum at the size of an AdamW update.

The momentum is optax's. The rest is ours: optax.contrib.muon multiplies matrices in their sharded layout,
which an explicitly sharded mesh refuses, and it corrects a momentum bias that the published Muon does not.

The width rule of `models.mup` is for Adam, whose updates have low rank: their largest singular value grows
as the width. All singular values of an orthogonal update are alike, sqrt(max(I, O)) / 5 here, so it needs
another rate. By the spectral condition (arXiv:2310.17813) the largest singular value of an update has to
stay proportional to sqrt(O / I). Where both sides grow by r, that gives a rate of r^(-1/2); where only I
grows, r^(-1); where only O grows, 1 (if the side that grows is the longer one).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import jax
import jax.numpy as jnp
import optax
from jax import P
from jaxtyping import Array, Float

from harness.models import Model
from harness.models.mup import WIDTH_SCALED_AXES, expert_matrix, relative_width
from harness.models.parameters import ParamSpec

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic x -> a x + b x^3 + c x^5, iterated on singular values. It raises small ones
fast and leaves all between .68 and 1.13, not at 1 (kellerjordan.github.io/posts/muon)."""
ADAM_RMS = 0.2
"""Root mean square of Adam's update of a parameter in one step (arXiv:2502.16982, section 2.2)."""
EPSILON = 1e-7


@dataclass(frozen=True)
class Matrix:
    """Shape of a hidden matrix as the product uses it, x_NI @ weight_IO. The stored array may have more
    axes, or a slice per layer or expert."""

    rows: int
    columns: int
    rate: float
    """Factor of the learning rate at this width; 1 at the base width."""


Matrices = Mapping[str, Matrix]
"""Hidden matrices by stored path."""


def hidden_matrices(model: Model) -> dict[str, Matrix]:
    """Return the parameters that Muon trains: all matrices except those with a vocabulary axis."""
    relative = relative_width(model.spec.config, model.shape.width)
    layer_paths = {path: model.stacking.canonical_paths(path)[0] for path in model.stored_specs}
    specs = {path: expert_matrix(model.param_specs[layer]) for path, layer in layer_paths.items()}
    return {
        path: as_matrix(spec, num_contracted_axes(spec), relative)
        for path, spec in specs.items()
        if spec.deviation and len(spec.shape) > 1 and "vocabulary" not in spec.axes
    }


def num_contracted_axes(spec: ParamSpec) -> int:
    """Return the number of leading axes that a product contracts."""
    # A matrix that writes to the residual stream contracts all axes before the last one.
    return len(spec.shape) - 1 if spec.axes[-1] == "width" else 1


def as_matrix(spec: ParamSpec, contracted: int, relative: float) -> Matrix:
    """Return a weight of one layer as a matrix. `relative`: width over base width."""
    rows, columns = math.prod(spec.shape[:contracted]), math.prod(spec.shape[contracted:])
    grown_in, grown_out = (
        # Key-value heads do not grow: their number is a mechanism option, the same at every width.
        relative if any(axis in WIDTH_SCALED_AXES and axis != "kv_heads" for axis in axes) else 1.0
        for axes in (spec.axes[:contracted], spec.axes[contracted:])
    )
    longest, longest_at_base = max(rows, columns), max(rows / grown_in, columns / grown_out)
    return Matrix(rows, columns, math.sqrt(grown_out / grown_in * longest_at_base / longest))


def scale_by_orthogonal(matrices: Matrices, steps: int) -> optax.GradientTransformation:
    """Orthogonalise each matrix of the updates, at root mean square ADAM_RMS; pass on all other updates.
    Matrices of one shape, from all layers and either orientation, are iterated as one stack."""

    def orthogonal(updates: optax.Updates, params: optax.Params | None) -> optax.Updates:
        results = dict(cast(Mapping[str, Array], updates))
        slices = {path: _as_wide_slices(results[path], matrix) for path, matrix in matrices.items()}
        for shape in dict.fromkeys(x_LIO.shape[1:] for x_LIO in slices.values()):
            paths = [path for path, x_LIO in slices.items() if x_LIO.shape[1:] == shape]
            stack_NIO = orthogonalise(jnp.concatenate([slices[path] for path in paths]), steps)
            ends = [sum(len(slices[path]) for path in paths[: i + 1]) for i in range(len(paths) - 1)]
            for path, part_LIO in zip(paths, jnp.split(stack_NIO, ends), strict=True):
                results[path] = _as_stored(part_LIO, matrices[path], results[path])
        return results

    return optax.stateless(orthogonal)


def orthogonalise(x_NIO: Float[Array, "N I O"], steps: int) -> Float[Array, "N I O"]:
    """Bring the singular values of each matrix near 1 (Newton-Schulz); needs I <= O."""
    a, b, c = COEFFICIENTS
    norm_N11 = jnp.sqrt(jnp.sum(jnp.square(x_NIO), axis=(1, 2), keepdims=True))
    x_NIO = x_NIO / (norm_N11 + EPSILON)
    for _ in range(steps):
        gram_NII = jnp.einsum("nio,njo->nij", x_NIO, x_NIO)
        x_NIO = a * x_NIO + (b * gram_NII + c * gram_NII @ gram_NII) @ x_NIO
    return x_NIO


def _as_wide_slices(update: Array, matrix: Matrix) -> Float[Array, "L I O"]:
    """Return one matrix per layer, replicated on every device, with the shorter side first."""
    x_LIO = _reshard(update, P(*[None] * update.ndim)).reshape(-1, matrix.rows, matrix.columns)
    if matrix.rows <= matrix.columns:
        return x_LIO
    # Without the barrier XLA folds the transpose into the products, whose bits then depend on the number of
    # cores (`layers.product`).
    return jax.lax.optimization_barrier(x_LIO.swapaxes(1, 2))


def _as_stored(x_LIO: Float[Array, "L I O"], matrix: Matrix, update: Array) -> Array:
    """Return the result in the shape and sharding of the update, at the size of Adam's."""
    if matrix.rows > matrix.columns:
        x_LIO = jax.lax.optimization_barrier(x_LIO).swapaxes(1, 2)
    size = ADAM_RMS * math.sqrt(max(matrix.rows, matrix.columns))
    return _reshard(size * x_LIO.reshape(update.shape), jax.typeof(update).sharding.spec)


def _reshard(x: Array, spec: P) -> Array:
    return x if jax.sharding.get_abstract_mesh().empty else jax.reshard(x, spec)
