"""PMuon: the momentum is preconditioned on both sides before it is orthogonalised."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from harness.extend import (
    MuonOptions,
    adam_sized,
    orthogonal_factor,
    partition,
    per_matrix,
    register_optimizer,
)


@dataclass(frozen=True)
class Options(MuonOptions):
    factor_decay: float = 0.95
    power: float = 0.3


class State(NamedTuple):
    momentum: Any
    left: Any
    right: Any


def power(gram_LII, exponent):
    values_LI, basis_LII = jnp.linalg.eigh(gram_LII)
    scaled_LI = jnp.maximum(values_LI, 1e-6 * values_LI[:, -1:] + 1e-30) ** exponent
    return (basis_LII * scaled_LI[:, None]) @ basis_LII.swapaxes(1, 2)


def preconditioned(options):
    momentum = optax.trace(options.momentum, nesterov=True)

    def init(params):
        squares = [
            jax.tree.map(lambda w, axis=axis: jnp.zeros((w.shape[0], *2 * [w.shape[axis]])), params)
            for axis in (1, 2)
        ]
        return State(momentum.init(params), *squares)

    def update(updates, state, params=None):
        mean, trace = momentum.update(updates, state.momentum)
        keep = options.factor_decay
        left = jax.tree.map(lambda a, g: keep * a + (1 - keep) * g @ g.swapaxes(1, 2), state.left, updates)
        right = jax.tree.map(lambda a, g: keep * a + (1 - keep) * g.swapaxes(1, 2) @ g, state.right, updates)

        def direction(m_LIO, left_LII, right_LOO):
            u_LIO = power(left_LII, -options.power) @ m_LIO @ power(right_LOO, -options.power)
            return adam_sized(orthogonal_factor(u_LIO, options.ns_steps))

        return jax.tree.map(direction, mean, left, right), State(trace, left, right)

    return optax.GradientTransformation(init, update)


@register_optimizer("pmuon", Options)
def pmuon(parameters, options, learning_rate):
    matrices = per_matrix(parameters, preconditioned(options))
    adam = optax.scale_by_adam(options.b1, options.b2, options.epsilon)
    return parameters.descent(partition(parameters, matrices=matrices, others=adam), learning_rate)
