"""Muon^2: the momentum is divided by the root of its second moment before it is orthogonalised."""

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
    second_decay: float = 0.95


class State(NamedTuple):
    momentum: Any
    second: Any


def squared(options):
    momentum = optax.trace(options.momentum, nesterov=True)

    def init(params):
        return State(momentum.init(params), jax.tree.map(jnp.zeros_like, params))

    def update(updates, state, params=None):
        mean, trace = momentum.update(updates, state.momentum)
        second = optax.tree.update_moment(updates, state.second, options.second_decay, 2)
        scaled = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + 1e-10), mean, second)
        orthogonal = jax.tree.map(lambda m: adam_sized(orthogonal_factor(m, options.ns_steps)), scaled)
        return orthogonal, State(trace, second)

    return optax.GradientTransformation(init, update)


@register_optimizer("muon_squared", Options)
def muon_squared(parameters, options, learning_rate):
    matrices = per_matrix(parameters, squared(options))
    adam = optax.scale_by_adam(options.b1, options.b2, options.epsilon)
    return parameters.descent(partition(parameters, matrices=matrices, others=adam), learning_rate)
