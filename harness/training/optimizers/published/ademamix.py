"""AdEMAMix: Adam with a second, slow momentum (arXiv:2409.03137).

    m1 = b1 m1 + (1 - b1) g,  m2 = b3(t) m2 + (1 - b3(t)) g,  v = b2 v + (1 - b2) g^2
    u = (m1 / (1 - b1^t) + alpha(t) m2) / (sqrt(v / (1 - b2^t)) + epsilon)

Over the first `warmup` of the run alpha grows linearly from 0, and so does the half-life of m2 from that of
m1 (section 3). Its updates are entrywise with Adam's size, so learning rates carry across width as Adam's do
(arXiv:2308.01814).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import optax
import optax.contrib

from harness.training.optimizers.adamw import AdamOptions
from harness.training.optimizers.optimizer_registry import register_optimizer
from harness.training.optimizers.parameter_group import ParameterGroup


@dataclass(frozen=True)
class AdEMAMixOptions(AdamOptions):
    """Adam's options, and decay and weight of the slow momentum."""

    b2: float = 0.999
    b3: float = 0.9999
    alpha: float = 5.0
    warmup: float = 1.0
    """Share of the run over which b3 and alpha grow."""


@register_optimizer("ademamix", AdEMAMixOptions, rate_rule="entries")
def ademamix(
    parameters: ParameterGroup, options: AdEMAMixOptions, learning_rate: Any, progress: Any
) -> optax.GradientTransformation:
    """Build AdEMAMix."""
    growth = jnp.minimum(progress / options.warmup, 1.0)
    first, last = jnp.log(options.b1), jnp.log(options.b3)
    decay = jnp.exp(first * last / ((1 - growth) * last + growth * first))
    direction = optax.contrib.scale_by_ademamix(
        options.b1, options.b2, decay, growth * options.alpha, options.epsilon
    )
    return parameters.descent(direction, learning_rate)
