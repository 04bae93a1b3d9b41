"""Tail read-out: a mean of the weights and of their average over the last steps is judged."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from harness.extend import Configured, Optimizer, adamw_node, register_optimizer


@dataclass(frozen=True)
class Options:
    inner: Configured = field(default_factory=adamw_node)
    decay: float = 0.99
    share: float = 0.6


class State(NamedTuple):
    inner: Any
    average: Any


@register_optimizer("tail_read_out", Options, rate_rule="inner")
def tail_read_out(parameters, options, learning_rate, step):
    inner = parameters.build(options.inner, learning_rate)

    def init(params):
        return State(inner.init(params), jax.tree.map(jnp.copy, params))

    def update(grads, state, params, **extra):
        updates, moments = inner.update(grads, state.inner, params, **extra)
        decay = jnp.minimum(options.decay, (1 + step) / (10 + step))
        average = jax.tree.map(
            lambda a, w, u: decay * a + (1 - decay) * (w + u), state.average, params, updates
        )
        return updates, State(moments, average)

    def judged(params, state):
        return {
            path: w
            if "vocabulary" in parameters.specs[path].axes
            else (1 - options.share) * w + options.share * state.average[path]
            for path, w in params.items()
        }

    return Optimizer(init, update, inner.at, judged)
