"""Unequal frequency: the other parameters step each second time, on the mean of two gradients."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from harness.extend import Configured, Optimizer, adamw_node, register_optimizer


@dataclass(frozen=True)
class Options:
    inner: Configured = field(default_factory=adamw_node)
    every: int = 2


class State(NamedTuple):
    inner: Any
    sums: Any


@register_optimizer("every_second_step", Options, rate_rule="inner")
def every_second_step(parameters, options, learning_rate, step):
    inner = parameters.build(options.inner, learning_rate)
    is_due = (step + 1) % options.every == 0

    def init(params):
        return State(inner.init(params), jax.tree.map(jnp.zeros_like, params))

    def update(grads, state, params, **extra):
        sums = jax.tree.map(jnp.add, state.sums, grads)
        mean = jax.tree.map(lambda s: s / options.every, sums)
        updates, moments = inner.update(mean, state.inner, params, **extra)
        held = jax.tree.map(lambda new, old: jnp.where(is_due, new, old), moments, state.inner)
        updates = jax.tree.map(lambda u: jnp.where(is_due, u, 0), updates)
        return updates, State(held, jax.tree.map(lambda s: jnp.where(is_due, 0, s), sums))

    return Optimizer(init, update, inner.at, inner.judged)
