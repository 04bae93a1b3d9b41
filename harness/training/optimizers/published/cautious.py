"""Cautious updates of another optimizer (arXiv:2411.16085, algorithm 1): only where they follow the gradient.

    u = u [u g < 0] n / (number of entries with u g < 0, plus 1), for updates u that are added

Weight decay applies to every entry, as in the paper.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from harness.config.socket_registry import Configured
from harness.training.optimizers.adamw import adamw_node
from harness.training.optimizers.optimizer_registry import Optimizer, OptimizerEntry, register_optimizer
from harness.training.optimizers.parameter_group import ParameterGroup


@dataclass(frozen=True)
class CautiousOptions:
    """Optimizer whose updates are masked."""

    inner: Configured[OptimizerEntry] = field(default_factory=adamw_node)


@register_optimizer("cautious", CautiousOptions, rate_rule="inner")
def cautious(parameters: ParameterGroup, options: CautiousOptions, learning_rate: Any) -> Optimizer:
    """Build an optimizer with masked updates."""
    inner = replace(parameters, weight_decay=0.0).build(options.inner, learning_rate)

    def update(grads: Any, state: Any, params: Any, **extra: Any) -> tuple[Any, Any]:
        updates, state = inner.update(grads, state, params, **extra)
        return parameters.decayed(jax.tree.map(_cautious, updates, grads), params, learning_rate), state

    return Optimizer(inner.init, update, inner.at, inner.judged)


def _cautious(update: Float[Array, ...], grad: Float[Array, ...]) -> Float[Array, ...]:
    follows = update * grad < 0
    return jnp.where(follows, update, 0) * (update.size / (jnp.sum(follows) + 1))
