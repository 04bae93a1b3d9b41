"""MARS: Adam on a gradient that is corrected by its change (arXiv:2411.10438, approximate form)."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from harness.extend import register_optimizer


@dataclass(frozen=True)
class Options:
    b1: float = 0.95
    b2: float = 0.99
    epsilon: float = 1e-8
    share: float = 0.025


class State(NamedTuple):
    adam: Any
    grads: Any


@register_optimizer("mars", Options)
def mars(parameters, options, learning_rate):
    adam = optax.scale_by_adam(options.b1, options.b2, options.epsilon)
    factor = options.share * options.b1 / (1 - options.b1)

    def init(params):
        return State(adam.init(params), jax.tree.map(jnp.zeros_like, params))

    def update(updates, state, params=None):
        corrected = jax.tree.map(lambda g, old: g + factor * (g - old), updates, state.grads)
        clipped = jax.tree.map(lambda c: c / jnp.maximum(1, jnp.linalg.norm(c)), corrected)
        descent, moments = adam.update(clipped, state.adam)
        return descent, State(moments, updates)

    return parameters.descent(optax.GradientTransformation(init, update), learning_rate)
