"""Optimizers by name: raw optax, without the learning rate, which the step multiplies in."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from types import MappingProxyType

import jax
import optax

from harness.config.schema.run import OptimizerConfig
from harness.core.errors import UserError, did_you_mean
from harness.training.optimizers.muon import Matrices, scale_by_orthogonal

DecayMask = dict[str, bool]
"""Flags of weight decay by parameter path: true for matrices, false for gains."""

RateScales = Mapping[str, float]
"""Factors of Adam's learning rate by parameter path (`models.mup`)."""

NO_MATRICES: Matrices = MappingProxyType({})

Direction = tuple[optax.GradientTransformation, RateScales]
"""Descent direction without learning rate and decay, and the factors of its learning rate."""


def adamw(config: OptimizerConfig, rate_scales: RateScales, matrices: Matrices) -> Direction:
    """Build AdamW: decoupled weight decay (Loshchilov and Hutter, 2019), scaled by the learning rate."""
    return optax.scale_by_adam(config.b1, config.b2, config.epsilon), rate_scales


def lion(config: OptimizerConfig, rate_scales: RateScales, matrices: Matrices) -> Direction:
    """Build Lion: the sign of a momentum, with decoupled decay (arXiv:2302.06675, algorithm 2). Its updates
    have Adam's size and rank, so learning rates carry across width as Adam's do."""
    return optax.scale_by_lion(config.b1, config.b2), rate_scales


def muon(config: OptimizerConfig, rate_scales: RateScales, matrices: Matrices) -> Direction:
    """Build Muon for hidden matrices, at Adam's update size (arXiv:2502.16982), and Adam for the rest."""
    if not matrices:
        raise UserError("optimizer.name=muon: the model has no hidden matrix. Choose optimizer=adamw.")
    momentum = optax.trace(config.momentum, nesterov=True)
    parts: dict[Hashable, optax.GradientTransformation] = {
        "matrix": optax.chain(momentum, scale_by_orthogonal(matrices, config.ns_steps)),
        "other": optax.scale_by_adam(config.b1, config.b2, config.epsilon),
    }
    labels = {path: "matrix" if path in matrices else "other" for path in rate_scales}
    rates = {**rate_scales, **{path: matrix.rate for path, matrix in matrices.items()}}
    return optax.partition(parts, labels), rates


Optimizer = Callable[[OptimizerConfig, RateScales, Matrices], Direction]

OPTIMIZERS: dict[str, Optimizer] = {"adamw": adamw, "lion": lion, "muon": muon}


def make_optimizer(
    config: OptimizerConfig, decay_mask: DecayMask, rate_scales: RateScales, matrices: Matrices = NO_MATRICES
) -> optax.GradientTransformation:
    """Build direction, factors per path, decay, before the learning rate. Decay comes last, so its share is
    the same at every width. `matrices`: the parameters that muon orthogonalises (`hidden_matrices`); muon
    needs at least one. Raises UserError for an unknown name."""
    if config.name not in OPTIMIZERS:
        hint = did_you_mean(config.name, OPTIMIZERS)
        raise UserError(f"optimizer.name={config.name}: no such optimizer; {hint}")
    direction, rates = OPTIMIZERS[config.name](config, rate_scales, matrices)
    scale = [_scale_per_path(rates)] if any(factor != 1 for factor in rates.values()) else []
    return optax.chain(direction, *scale, optax.add_decayed_weights(config.weight_decay, mask=decay_mask))


def _scale_per_path(rate_scales: RateScales) -> optax.GradientTransformation:
    def scale(updates: optax.Updates, params: optax.Params | None) -> optax.Updates:
        return jax.tree.map(lambda update, factor: update * factor, updates, dict(rate_scales))

    return optax.stateless(scale)
