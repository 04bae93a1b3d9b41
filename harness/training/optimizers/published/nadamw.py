"""NAdamW: Adam that looks ahead by one step of its momentum (Dozat, 2016), with decoupled decay.

    m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2
    u = (b1 m / (1 - b1^(t+1)) + (1 - b1) g / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + epsilon)

Its updates are entrywise with Adam's size, so learning rates carry across width as Adam's do
(arXiv:2308.01814, for all such optimizers).
"""

from __future__ import annotations

from typing import Any

import optax

from harness.training.optimizers.adamw import AdamOptions
from harness.training.optimizers.optimizer_registry import register_optimizer
from harness.training.optimizers.parameter_group import ParameterGroup


@register_optimizer("nadamw", AdamOptions, rate_rule="entries")
def nadamw(
    parameters: ParameterGroup, options: AdamOptions, learning_rate: Any
) -> optax.GradientTransformation:
    """Build NAdamW."""
    direction = optax.scale_by_adam(options.b1, options.b2, options.epsilon, nesterov=True)
    return parameters.descent(direction, learning_rate)
