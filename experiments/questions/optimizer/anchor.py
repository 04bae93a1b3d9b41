"""Anchor: before each step the weights are drawn to those of the start, less and less."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from harness.extend import Configured, Optimizer, adamw_node, register_optimizer


@dataclass(frozen=True)
class Options:
    inner: Configured = field(default_factory=adamw_node)


class State(NamedTuple):
    inner: Any
    start: Any


@register_optimizer("anchor", Options, rate_rule="inner")
def anchor(parameters, options, learning_rate, progress, step):
    inner = parameters.build(options.inner, learning_rate)
    late = jnp.clip((progress - 0.66) / (0.9 - 0.66), 0, 1)
    share = 0.5 * (1 + jnp.cos(jnp.pi * late)) / (step + 2)

    def init(params):
        return State(inner.init(params), jax.tree.map(jnp.copy, params))

    def update(grads, state, params, **extra):
        pulls = jax.tree.map(lambda start, w: share * (start - w), state.start, params)
        drawn = jax.tree.map(jnp.add, params, pulls)
        updates, moments = inner.update(grads, state.inner, drawn, **extra)
        return jax.tree.map(jnp.add, updates, pulls), State(moments, state.start)

    return Optimizer(init, update, inner.at, inner.judged)
