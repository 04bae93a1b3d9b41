"""Optimizers by name: raw optax, without the learning rate, which the step multiplies in."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import optax

from harness.config.errors import UserError, nearest
from harness.config.schema import OptimizerConfig

DecayMask = dict[str, bool]
"""By parameter path, whether weight decay applies: matrices yes, gains no."""

RateScales = Mapping[str, float]
"""By parameter path, what Adam's learning rate is multiplied by (`models.width`)."""


def adamw(
    config: OptimizerConfig, decay_mask: DecayMask, rate_scales: RateScales
) -> optax.GradientTransformation:
    """Decoupled weight decay (Loshchilov and Hutter, 2019), decay scaled by the learning rate.

    The scales of single paths stand before the decay: it takes the same share a step at every width.
    """
    return optax.chain(
        optax.scale_by_adam(config.b1, config.b2, config.epsilon),
        *([_scaled(rate_scales)] if any(scale != 1 for scale in rate_scales.values()) else []),
        optax.add_decayed_weights(config.weight_decay, mask=decay_mask),
    )


Optimizer = Callable[[OptimizerConfig, DecayMask, RateScales], optax.GradientTransformation]

OPTIMIZERS: dict[str, Optimizer] = {"adamw": adamw}


def make_optimizer(
    config: OptimizerConfig, decay_mask: DecayMask, rate_scales: RateScales
) -> optax.GradientTransformation:
    """The direction of descent, before the learning rate. Raises UserError for an unknown name."""
    if config.name not in OPTIMIZERS:
        raise UserError(
            f"optimizer.name={config.name}: no such optimizer; {nearest(config.name, OPTIMIZERS)}"
        )
    return OPTIMIZERS[config.name](config, decay_mask, rate_scales)


def _scaled(rate_scales: RateScales) -> optax.GradientTransformation:
    def scale(updates: optax.Updates, params: optax.Params | None) -> optax.Updates:
        return jax.tree.map(lambda update, factor: update * factor, updates, dict(rate_scales))

    return optax.stateless(scale)
