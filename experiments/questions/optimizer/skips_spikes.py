"""No step at a spike: a step whose loss is far above its running mean changes nothing."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from harness.extend import Configured, Optimizer, adamw_node, register_optimizer


@dataclass(frozen=True)
class Options:
    inner: Configured = field(default_factory=adamw_node)
    deviations: float = 6.0
    decay: float = 0.99


class State(NamedTuple):
    inner: Any
    mean: Any
    square: Any


@register_optimizer("skips_spikes", Options, rate_rule="inner")
def skips_spikes(parameters, options, learning_rate, step):
    inner = parameters.build(options.inner, learning_rate)

    def init(params):
        return State(inner.init(params), jnp.float32(0), jnp.float32(0))

    def update(grads, state, params, *, value, **extra):
        updates, moments = inner.update(grads, state.inner, params, value=value, **extra)
        decay = jnp.minimum(options.decay, step / (step + 1))
        spread = jnp.sqrt(jnp.maximum(state.square - state.mean**2, 0)) + 1e-3
        is_spike = (step > 20) & (value > state.mean + options.deviations * spread)
        held = jax.tree.map(lambda new, old: jnp.where(is_spike, old, new), moments, state.inner)
        mean = jnp.where(is_spike, state.mean, decay * state.mean + (1 - decay) * value)
        square = jnp.where(is_spike, state.square, decay * state.square + (1 - decay) * value**2)
        return jax.tree.map(lambda u: jnp.where(is_spike, 0, u), updates), State(held, mean, square)

    return Optimizer(init, update, inner.at, inner.judged)
