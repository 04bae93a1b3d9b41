"""Moving average of the weights of another optimizer, which is what is judged.

    a = d a + (1 - d) w after each step, d = min(decay, (1 + t) / (10 + t))

The average starts at the first weights; the growing decay lets them go (as in TensorFlow's
ExponentialMovingAverage). The training itself is that of the other optimizer, bit by bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int32

from harness.config.socket_registry import Configured
from harness.core.errors import UserError
from harness.training.optimizers.adamw import adamw_node
from harness.training.optimizers.optimizer_registry import Optimizer, OptimizerEntry, register_optimizer
from harness.training.optimizers.parameter_group import ParameterGroup


@dataclass(frozen=True)
class AveragedOptions:
    """Optimizer that trains, and decay of the average."""

    inner: Configured[OptimizerEntry] = field(default_factory=adamw_node)
    decay: float = 0.997


class AveragedState(NamedTuple):
    """State of the inner optimizer, and the average of the weights."""

    inner: Any
    average: Any
    step: Int32[Array, ""]


@register_optimizer("averaged", AveragedOptions, rate_rule="inner")
def averaged(parameters: ParameterGroup, options: AveragedOptions, learning_rate: Any) -> Optimizer:
    """Build an optimizer whose averaged weights are judged. Raises UserError if others already are."""
    inner = parameters.build(options.inner, learning_rate)
    if inner.judged:
        raise UserError(
            f"optimizer.options.inner.name={options.inner.name} has weights of its own to be judged by."
            " Choose another, or leave the average out."
        )

    def init(params: Any) -> AveragedState:
        return AveragedState(inner.init(params), jax.tree.map(jnp.copy, params), jnp.int32(0))

    def update(grads: Any, state: AveragedState, params: Any, **extra: Any) -> tuple[Any, AveragedState]:
        updates, moments = inner.update(grads, state.inner, params, **extra)
        decay = jnp.minimum(options.decay, (1 + state.step) / (10 + state.step))
        average = jax.tree.map(
            lambda a, p, u: decay * a + (1 - decay) * (p + u), state.average, params, updates
        )
        return updates, AveragedState(moments, average, state.step + 1)

    return Optimizer(init, update, inner.at, judged=lambda params, state: state.average)
