"""SOAP: Adam in the eigenbasis of Shampoo's factors (arXiv:2409.11321, algorithm 3).

    z = Q_L' g Q_R;  v = b2 v + (1 - b2) z^2;  m = b1 m + (1 - b1) g
    u = Q_L (Q_L' m Q_R / (sqrt(v) + epsilon)) Q_R', with both moments corrected as in Adam
    L = s L + (1 - s) g g',  R = s R + (1 - s) g' g;  each `every` steps Q = qr(L Q), a power iteration

The first gradient makes the bases (eigenvectors of g g' and g' g) and moves nothing, as in the authors' code:
in its own bases it is diagonal, and Adam would turn the noise beside the diagonal into steps. All other
parameters are Adam's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int32

from harness.training.optimizers.adamw import AdamOptions
from harness.training.optimizers.optimizer_registry import register_optimizer
from harness.training.optimizers.parameter_group import ParameterGroup
from harness.training.optimizers.per_matrix import partition, per_matrix


@dataclass(frozen=True)
class SoapOptions(AdamOptions):
    """Adam's options, the decay of the factors, and the steps from one basis to the next."""

    b1: float = 0.95
    b2: float = 0.95
    factor_decay: float = 0.95
    every: int = 10


class SoapState(NamedTuple):
    """Moments, factors and bases by path."""

    first: Any
    second: Any
    left: Any
    right: Any
    left_basis: Any
    right_basis: Any
    step: Int32[Array, ""]


@register_optimizer("soap", SoapOptions)
def soap(
    parameters: ParameterGroup, options: SoapOptions, learning_rate: Any
) -> optax.GradientTransformation:
    """Build SOAP for hidden matrices, and AdamW for the rest."""
    adam = optax.scale_by_adam(options.b1, options.b2, options.epsilon)
    matrices = per_matrix(parameters, scale_by_soap(options))
    return parameters.descent(partition(parameters, matrices=matrices, others=adam), learning_rate)


def scale_by_soap(options: SoapOptions) -> optax.GradientTransformation:
    """Return the transformation of matrices [L, I, O]."""

    def init(params: Any) -> SoapState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        rows = jax.tree.map(lambda w_LIO: jnp.zeros((w_LIO.shape[0], *2 * [w_LIO.shape[1]])), params)
        columns = jax.tree.map(lambda w_LIO: jnp.zeros((w_LIO.shape[0], *2 * [w_LIO.shape[2]])), params)
        return SoapState(zeros, zeros, rows, columns, rows, columns, jnp.int32(0))

    def start(grads: Any, state: SoapState) -> tuple[Any, SoapState]:
        left, right = optax.tree.update_moment(
            grams_of_each(grads), (state.left, state.right), options.factor_decay, 1
        )
        bases = jax.tree.map(lambda gram: jnp.linalg.eigh(gram)[1], (left, right))
        return jax.tree.map(jnp.zeros_like, grads), state._replace(
            left=left, right=right, left_basis=bases[0], right_basis=bases[1], step=state.step + 1
        )

    def follow(grads: Any, state: SoapState) -> tuple[Any, SoapState]:
        bases = (state.left_basis, state.right_basis)
        first = optax.tree.update_moment(grads, state.first, options.b1, 1)
        second = optax.tree.update_moment(jax.tree.map(_turn, grads, *bases), state.second, options.b2, 2)
        mean = optax.tree.bias_correction(jax.tree.map(_turn, first, *bases), options.b1, state.step)
        square = optax.tree.bias_correction(second, options.b2, state.step)
        ratios = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + options.epsilon), mean, square)
        directions = jax.tree.map(_turn_back, ratios, *bases)
        left, right = optax.tree.update_moment(
            grams_of_each(grads), (state.left, state.right), options.factor_decay, 1
        )
        left_basis, right_basis = jax.lax.cond(
            state.step % options.every == 0,
            lambda: jax.tree.map(lambda gram, basis: jnp.linalg.qr(gram @ basis)[0], (left, right), bases),
            lambda: bases,
        )
        return directions, SoapState(first, second, left, right, left_basis, right_basis, state.step + 1)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, SoapState]:
        return jax.lax.cond(state.step == 0, start, follow, updates, state)

    return optax.GradientTransformation(init, update)


def grams_of_each(grads: Any) -> tuple[Any, Any]:
    """Return g g' and g' g of each matrix, by path."""
    rows = jax.tree.map(lambda g_LIO: jnp.einsum("lio,ljo->lij", g_LIO, g_LIO), grads)
    columns = jax.tree.map(lambda g_LIO: jnp.einsum("lio,lip->lop", g_LIO, g_LIO), grads)
    return rows, columns


def _turn(g_LIO: Array, left_LII: Array, right_LOO: Array) -> Array:
    return jnp.einsum("lij,lio,lop->ljp", left_LII, g_LIO, right_LOO)


def _turn_back(z_LIO: Array, left_LII: Array, right_LOO: Array) -> Array:
    return jnp.einsum("lij,ljp,lop->lio", left_LII, z_LIO, right_LOO)
