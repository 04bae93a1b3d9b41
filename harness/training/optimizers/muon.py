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
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from harness.training.optimizers.adamw import AdamOptions
from harness.training.optimizers.matrices import Matrices, Matrix, as_slices, as_stored
from harness.training.optimizers.optimizer_registry import register_optimizer
from harness.training.optimizers.parameter_group import ParameterGroup
from harness.training.optimizers.per_matrix import partition

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic x -> a x + b x^3 + c x^5, iterated on singular values. It raises small ones
fast and leaves all between .68 and 1.13, not at 1 (kellerjordan.github.io/posts/muon)."""
ADAM_RMS = 0.2
"""Root mean square of Adam's update of a parameter in one step (arXiv:2502.16982, section 2.2)."""
EPSILON = 1e-7


@dataclass(frozen=True)
class MuonOptions(AdamOptions):
    """Momentum and iterations for matrices; Adam's options for the rest."""

    momentum: float = 0.95
    ns_steps: int = 5


@register_optimizer(
    "muon", MuonOptions, rate_rule="spectral", flat_keys=("b1", "b2", "epsilon", "momentum", "ns_steps")
)
def muon(
    parameters: ParameterGroup, options: MuonOptions, learning_rate: Any
) -> optax.GradientTransformation:
    """Build Muon for hidden matrices, at Adam's update size (arXiv:2502.16982), and Adam for the rest."""
    momentum = optax.trace(options.momentum, nesterov=True)
    orthogonal = scale_by_orthogonal(parameters.matrices, options.ns_steps)
    adam = optax.scale_by_adam(options.b1, options.b2, options.epsilon)
    direction = partition(parameters, matrices=optax.chain(momentum, orthogonal), others=adam)
    return parameters.descent(direction, learning_rate)


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


def orthogonal_factor(x_LIO: Float[Array, "L I O"], steps: int = 5) -> Float[Array, "L I O"]:
    """Return `orthogonalise` of matrices of either orientation."""
    if x_LIO.shape[1] <= x_LIO.shape[2]:
        return orthogonalise(x_LIO, steps)
    wide_LOI = jax.lax.optimization_barrier(x_LIO.swapaxes(1, 2))
    return jax.lax.optimization_barrier(orthogonalise(wide_LOI, steps)).swapaxes(1, 2)


def _as_wide_slices(update: Array, matrix: Matrix) -> Float[Array, "L I O"]:
    """Return one matrix per layer, replicated on every device, with the shorter side first."""
    x_LIO = as_slices(update, matrix)
    if matrix.rows <= matrix.columns:
        return x_LIO
    # Without the barrier XLA folds the transpose into the products, whose bits then depend on the number of
    # cores (`layers.product`).
    return jax.lax.optimization_barrier(x_LIO.swapaxes(1, 2))


def _as_stored(x_LIO: Float[Array, "L I O"], matrix: Matrix, update: Array) -> Array:
    """Return the result in the shape and sharding of the update, at the size of Adam's."""
    if matrix.rows > matrix.columns:
        x_LIO = jax.lax.optimization_barrier(x_LIO).swapaxes(1, 2)
    return as_stored(ADAM_RMS * math.sqrt(max(matrix.rows, matrix.columns)) * x_LIO, update)
