"""Shampoo with averaged factors (arXiv:1802.09568), for hidden matrices at Adam's update size.

    L = b2 L + (1 - b2) g g',  R = b2 R + (1 - b2) g' g,  m = b1 m + (1 - b1) g
    u = (L + epsilon)^(-1/4) m (R + epsilon)^(-1/4), at root mean square 0.2

The roots are taken anew each `every` steps, at the first one too. `epsilon` is a share of the largest
eigenvalue. All other parameters are Adam's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int32

from harness.training.optimizers.adamw import AdamOptions
from harness.training.optimizers.muon_like import adam_sized
from harness.training.optimizers.optimizer_registry import register_optimizer
from harness.training.optimizers.parameter_group import ParameterGroup
from harness.training.optimizers.per_matrix import partition, per_matrix
from harness.training.optimizers.published.soap import grams_of_each


@dataclass(frozen=True)
class ShampooOptions(AdamOptions):
    """Adam's options for the other parameters, and the factors of matrices."""

    factor_decay: float = 0.95
    every: int = 5
    factor_epsilon: float = 1e-6


class ShampooState(NamedTuple):
    """Momentum, factors and their roots by path."""

    momentum: Any
    left: Any
    right: Any
    left_root: Any
    right_root: Any
    step: Int32[Array, ""]


@register_optimizer("shampoo", ShampooOptions)
def shampoo(
    parameters: ParameterGroup, options: ShampooOptions, learning_rate: Any
) -> optax.GradientTransformation:
    """Build Shampoo for hidden matrices, and AdamW for the rest."""
    adam = optax.scale_by_adam(options.b1, options.b2, options.epsilon)
    matrices = per_matrix(parameters, scale_by_shampoo(options))
    return parameters.descent(partition(parameters, matrices=matrices, others=adam), learning_rate)


def scale_by_shampoo(options: ShampooOptions) -> optax.GradientTransformation:
    """Return the transformation of matrices [L, I, O]."""

    def init(params: Any) -> ShampooState:
        rows = jax.tree.map(lambda w_LIO: jnp.zeros((w_LIO.shape[0], *2 * [w_LIO.shape[1]])), params)
        columns = jax.tree.map(lambda w_LIO: jnp.zeros((w_LIO.shape[0], *2 * [w_LIO.shape[2]])), params)
        return ShampooState(jax.tree.map(jnp.zeros_like, params), rows, columns, rows, columns, jnp.int32(0))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, ShampooState]:
        momentum = optax.tree.update_moment(updates, state.momentum, options.b1, 1)
        grams = grams_of_each(updates)
        left, right = optax.tree.update_moment(grams, (state.left, state.right), options.factor_decay, 1)
        roots = jax.lax.cond(
            state.step % options.every == 0,
            lambda: jax.tree.map(lambda gram: inverse_root(gram, options.factor_epsilon), (left, right)),
            lambda: (state.left_root, state.right_root),
        )
        left_root, right_root = roots
        directions = jax.tree.map(_direction, left_root, momentum, right_root)
        return directions, ShampooState(momentum, left, right, left_root, right_root, state.step + 1)

    return optax.GradientTransformation(init, update)


def inverse_root(gram_LII: Float[Array, "L I I"], epsilon: float) -> Float[Array, "L I I"]:
    """Return (gram + epsilon times its largest eigenvalue)^(-1/4) of each matrix."""
    values_LI, vectors_LII = jnp.linalg.eigh(gram_LII)
    largest_L1 = jnp.max(values_LI, axis=1, keepdims=True)
    roots_LI = (jnp.maximum(values_LI, 0) + epsilon * largest_L1 + 1e-30) ** -0.25
    return jnp.einsum("lij,lj,lkj->lik", vectors_LII, roots_LI, vectors_LII)


def _direction(left_LII: Array, m_LIO: Array, right_LOO: Array) -> Array:
    return adam_sized(left_LII @ m_LIO @ right_LOO)
