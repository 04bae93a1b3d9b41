"""EMA-Nesterov: the gradient is taken where an average of the last steps leads."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from harness.extend import Configured, Optimizer, adamw_node, register_optimizer


@dataclass(frozen=True)
class Options:
    inner: Configured = field(default_factory=adamw_node)
    share: float = 0.3


class State(NamedTuple):
    inner: Any
    steps: Any
    ahead: Any


@register_optimizer("look_ahead_gradient", Options, rate_rule="inner")
def look_ahead_gradient(parameters, options, learning_rate, progress):
    inner = parameters.build(options.inner, learning_rate)

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return State(inner.init(params), zeros, zeros)

    def update(grads, state, params, **extra):
        updates, moments = inner.update(grads, state.inner, params, **extra)
        steps = jax.tree.map(lambda d, u: 0.99 * d + 0.01 * u, state.steps, updates)
        share = jnp.where((progress > 0.1) & (progress < 0.65), options.share, 0.0)
        return updates, State(moments, steps, jax.tree.map(lambda d: share * d, steps))

    return Optimizer(
        init, update, lambda params, state: jax.tree.map(jnp.add, params, state.ahead), inner.judged
    )
