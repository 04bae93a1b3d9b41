"""Outer steps: each n steps the whole change is one step of a Nesterov momentum."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from harness.extend import Configured, Optimizer, adamw_node, register_optimizer


@dataclass(frozen=True)
class Options:
    inner: Configured = field(default_factory=adamw_node)
    every: int = 5


class State(NamedTuple):
    inner: Any
    old: Any
    momentum: Any


@register_optimizer("outer_steps", Options, rate_rule="inner")
def outer_steps(parameters, options, learning_rate, step):
    inner = parameters.build(options.inner, learning_rate)

    def init(params):
        return State(inner.init(params), jax.tree.map(jnp.copy, params), jax.tree.map(jnp.zeros_like, params))

    def update(grads, state, params, **extra):
        updates, moments = inner.update(grads, state.inner, params, **extra)
        is_due = (step + 1) % options.every == 0
        moved = jax.tree.map(lambda old, w, u: old - (w + u), state.old, params, updates)
        momentum = jax.tree.map(lambda o, d: 0.5 * o + 0.7 * d, state.momentum, moved)
        outer = jax.tree.map(lambda old, o, d: old - 0.5 * o - 0.7 * d, state.old, momentum, moved)
        pick = lambda new, old: jax.tree.map(lambda a, b: jnp.where(is_due, a, b), new, old)  # noqa: E731
        updates = jax.tree.map(lambda o, w, u: jnp.where(is_due, o - w, u), outer, params, updates)
        return updates, State(moments, pick(outer, state.old), pick(momentum, state.momentum))

    return Optimizer(init, update, inner.at, inner.judged)
