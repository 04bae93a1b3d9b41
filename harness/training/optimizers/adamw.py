"""AdamW and Lion: descent by the moments of each entry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import optax

from harness.config.schema.run import ModuleConfig
from harness.config.socket_registry import Configured
from harness.training.optimizers.optimizer_registry import OPTIMIZERS, OptimizerEntry, register_optimizer
from harness.training.optimizers.parameter_group import ParameterGroup


@dataclass(frozen=True)
class LionOptions:
    """Decays of the two moments."""

    b1: float = 0.9
    b2: float = 0.95


@dataclass(frozen=True)
class AdamOptions(LionOptions):
    """Decays of the two moments, and what is added to the root of the second."""

    epsilon: float = 1e-8


@register_optimizer("adamw", AdamOptions, rate_rule="entries", flat_keys=("b1", "b2", "epsilon"))
def adamw(
    parameters: ParameterGroup, options: AdamOptions, learning_rate: Any
) -> optax.GradientTransformation:
    """Build AdamW: decoupled weight decay (Loshchilov and Hutter, 2019), scaled by the learning rate."""
    return parameters.descent(optax.scale_by_adam(options.b1, options.b2, options.epsilon), learning_rate)


@register_optimizer("lion", LionOptions, rate_rule="entries", flat_keys=("b1", "b2"))
def lion(
    parameters: ParameterGroup, options: LionOptions, learning_rate: Any
) -> optax.GradientTransformation:
    """Build Lion: the sign of a momentum, with decoupled decay (arXiv:2302.06675, algorithm 2). Its updates
    have Adam's size and rank, so learning rates carry across width as Adam's do."""
    return parameters.descent(optax.scale_by_lion(options.b1, options.b2), learning_rate)


def adamw_node() -> Configured[OptimizerEntry]:
    """Return AdamW with its defaults: what a wrapper wraps unless it is told otherwise."""
    return OPTIMIZERS.lookup(ModuleConfig("adamw"))
