"""Cautious weight decay: only entries that the update moves towards zero decay."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax.numpy as jnp

from harness.extend import Configured, Optimizer, adamw_node, register_optimizer


@dataclass(frozen=True)
class Options:
    inner: Configured = field(default_factory=adamw_node)
    decay: float = 0.1


class State(NamedTuple):
    inner: Any


@register_optimizer("cautious_decay", Options, rate_rule="inner")
def cautious_decay(parameters, options, learning_rate):
    inner = parameters.build(options.inner, learning_rate)

    def update(grads, state, params, **extra):
        updates, moments = inner.update(grads, state.inner, params, **extra)

        def decayed(path, u, w):
            shrinks = (u * w < 0) & parameters.decays[path]
            return u - learning_rate * options.decay * jnp.where(shrinks, w, 0)

        return {path: decayed(path, u, params[path]) for path, u in updates.items()}, State(moments)

    return Optimizer(lambda params: State(inner.init(params)), update, inner.at, inner.judged)
