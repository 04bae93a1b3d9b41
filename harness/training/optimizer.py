"""Optimizers by name: raw optax, without the learning rate, which the step multiplies in."""

from __future__ import annotations

from collections.abc import Callable

import optax

from harness.config.errors import UserError, nearest
from harness.config.schema import OptimizerConfig

DecayMask = dict[str, bool]
"""By parameter path, whether weight decay applies: matrices yes, gains no."""


def adamw(config: OptimizerConfig, decay_mask: DecayMask) -> optax.GradientTransformation:
    """Decoupled weight decay (Loshchilov and Hutter, 2019), decay scaled by the learning rate."""
    return optax.chain(
        optax.scale_by_adam(config.b1, config.b2, config.epsilon),
        optax.add_decayed_weights(config.weight_decay, mask=decay_mask),
    )


OPTIMIZERS: dict[str, Callable[[OptimizerConfig, DecayMask], optax.GradientTransformation]] = {"adamw": adamw}


def make_optimizer(config: OptimizerConfig, decay_mask: DecayMask) -> optax.GradientTransformation:
    """The direction of descent, before the learning rate. Raises UserError for an unknown name."""
    if config.name not in OPTIMIZERS:
        raise UserError(
            f"optimizer.name={config.name}: no such optimizer; {nearest(config.name, OPTIMIZERS)}"
        )
    return OPTIMIZERS[config.name](config, decay_mask)
