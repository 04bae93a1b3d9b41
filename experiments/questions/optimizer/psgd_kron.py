"""PSGD-Kron: a triangular preconditioner on each side, fitted to a random probe (arXiv:2402.04553)."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from harness.extend import MuonOptions, adam_sized, partition, per_matrix, register_optimizer


@dataclass(frozen=True)
class Options(MuonOptions):
    step: float = 0.1
    """Step of the preconditioners."""


class State(NamedTuple):
    momentum: Any
    left: Any
    right: Any


def fitted(q_LII, near_LII, far_LII, step):
    size_L11 = jnp.linalg.norm(near_LII + far_LII, axis=(1, 2), keepdims=True) + 1e-12
    return q_LII - step * jnp.triu(near_LII - far_LII) @ q_LII / size_L11


def kron(options, key):
    momentum = optax.trace(options.momentum)

    def init(params):
        eyes = [
            jax.tree.map(lambda w, a=axis: jnp.tile(jnp.eye(w.shape[a]), (w.shape[0], 1, 1)), params)
            for axis in (1, 2)
        ]
        return State(momentum.init(params), *eyes)

    def fit(m_LIO, left_LII, right_LOO):
        a_LIO = left_LII @ m_LIO @ right_LOO.swapaxes(1, 2)
        z_LIO = jax.random.normal(key, m_LIO.shape)
        b_LIO = jnp.linalg.solve(left_LII.swapaxes(1, 2), z_LIO)
        b_LIO = jnp.linalg.solve(right_LOO.swapaxes(1, 2), b_LIO.swapaxes(1, 2)).swapaxes(1, 2)
        turn = [x.swapaxes(1, 2) for x in (a_LIO, b_LIO)]
        left_LII = fitted(left_LII, a_LIO @ turn[0], b_LIO @ turn[1], options.step)
        return left_LII, fitted(right_LOO, turn[0] @ a_LIO, turn[1] @ b_LIO, options.step)

    def update(updates, state, params=None):
        mean, trace = momentum.update(updates, state.momentum)
        fits = {path: fit(m, state.left[path], state.right[path]) for path, m in mean.items()}
        left, right = ({path: pair[side] for path, pair in fits.items()} for side in (0, 1))

        def direction(m, l, r):
            return adam_sized(l.swapaxes(1, 2) @ l @ m @ r.swapaxes(1, 2) @ r)

        return jax.tree.map(direction, mean, left, right), State(trace, left, right)

    return optax.GradientTransformation(init, update)


@register_optimizer("psgd_kron", Options)
def psgd_kron(parameters, options, learning_rate, key):
    matrices = per_matrix(parameters, kron(options, key))
    adam = optax.scale_by_adam(options.b1, options.b2, options.epsilon)
    return parameters.descent(partition(parameters, matrices=matrices, others=adam), learning_rate)
