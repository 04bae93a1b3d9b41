"""Schedule-free AdamW (arXiv:2405.15682): no schedule but a warm-up; an average of the weights is judged.

    y = (1 - b1) z + b1 x: trained parameters, where the gradient is taken
    z = z - rate (g / (sqrt(v) + epsilon) + decay y);  x = running mean of z, weighted by rate^2: judged

The harness warms the rate up (`schedule.warmup`); choose schedule=constant with it.
"""

from __future__ import annotations

from typing import Any

import optax
import optax.contrib

from harness.training.optimizers.adamw import AdamOptions
from harness.training.optimizers.optimizer_registry import Optimizer, register_optimizer
from harness.training.optimizers.parameter_group import ParameterGroup


@register_optimizer("schedule_free", AdamOptions, rate_rule="entries")
def schedule_free(parameters: ParameterGroup, options: AdamOptions, learning_rate: Any) -> Optimizer:
    """Build schedule-free AdamW. `b1` is the share of the average in y; z moves entrywise as Adam does, so
    learning rates carry across width as Adam's (arXiv:2308.01814)."""
    adam = optax.scale_by_rms(options.b2, options.epsilon, eps_in_sqrt=False, bias_correction=True)
    base = parameters.descent(adam, learning_rate)
    inner = optax.contrib.schedule_free(base, learning_rate, options.b1)

    def judged(params: Any, state: Any) -> Any:
        return optax.contrib.schedule_free_eval_params(state, params)

    return Optimizer(inner.init, inner.update, judged=judged)
