"""Muown: rows are a norm times a direction; Muon trains the directions and Adam the norms."""

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


class State(NamedTuple):
    momentum: Any
    adam: Any


def norms(w_LIO):
    return jnp.linalg.norm(w_LIO, axis=1, keepdims=True) + 1e-12  # a neuron is a column here


def reparametrised(options, learning_rate):
    momentum = optax.trace(options.momentum, nesterov=True)
    adam = optax.scale_by_adam(options.b1, options.b2, options.epsilon)

    def init(params):
        return State(momentum.init(params), adam.init(jax.tree.map(norms, params)))

    def update(updates, state, params=None):
        units = jax.tree.map(lambda w: w / norms(w), params)
        along = jax.tree.map(lambda g, v: jnp.sum(g * v, axis=1, keepdims=True), updates, units)
        across = jax.tree.map(lambda g, v, a: norms(g) * (g - a * v), updates, units, along)
        mean, trace = momentum.update(across, state.momentum)
        steps, moments = adam.update(along, state.adam)

        def change(w_LIO, unit_LIO, m_LIO, step_L1O):
            turned_LIO = unit_LIO - learning_rate * adam_sized(orthogonal_factor(m_LIO, options.ns_steps))
            length_L1O = jnp.maximum(norms(w_LIO) - learning_rate * step_L1O, 0)
            return length_L1O * turned_LIO / norms(turned_LIO) - w_LIO

        return jax.tree.map(change, params, units, mean, steps), State(trace, moments)

    return optax.GradientTransformation(init, update)


@register_optimizer("muown", MuonOptions)
def muown(parameters, options, learning_rate):
    adam = optax.scale_by_adam(options.b1, options.b2, options.epsilon)
    return partition(
        parameters,
        matrices=per_matrix(parameters, reparametrised(options, learning_rate)),
        others=parameters.descent(adam, learning_rate),
    )
