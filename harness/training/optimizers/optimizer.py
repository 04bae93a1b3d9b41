"""Optimizers by name: raw optax, without the learning rate, which the step multiplies in."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from types import MappingProxyType

import jax
import optax

from harness.config.schema.run import OptimizerConfig
from harness.core.errors import UserError, did_you_mean
from harness.training.optimizers.muon import Matrices, hidden_matrices, scale_by_orthogonal

__all__ = ["OPTIMIZERS", "Matrices", "hidden_matrices", "make_optimizer"]

DecayMask = dict[str, bool]
"""Flags of weight decay by parameter path: true for matrices, false for gains."""

RateScales = Mapping[str, float]
"""Factors of Adam's learning rate by parameter path (`models.mup`)."""

NO_MATRICES: Matrices = MappingProxyType({})


def adamw(
    config: OptimizerConfig, decay_mask: DecayMask, rate_scales: RateScales, matrices: Matrices
) -> optax.GradientTransformation:
    """Build AdamW: decoupled weight decay (Loshchilov and Hutter, 2019), scaled by the learning rate."""
    return _with_decay(_adam(config), config, decay_mask, rate_scales)


def lion(
    config: OptimizerConfig, decay_mask: DecayMask, rate_scales: RateScales, matrices: Matrices
) -> optax.GradientTransformation:
    """Build Lion: the sign of a momentum, with decoupled decay (arXiv:2302.06675, algorithm 2). Its updates
    have Adam's size and rank, so learning rates carry across width as Adam's do."""
    return _with_decay(optax.scale_by_lion(config.b1, config.b2), config, decay_mask, rate_scales)


def muon(
    config: OptimizerConfig, decay_mask: DecayMask, rate_scales: RateScales, matrices: Matrices
) -> optax.GradientTransformation:
    """Build Muon for hidden matrices, at Adam's update size (arXiv:2502.16982), and Adam for the rest."""
    _check_muon(config, matrices)
    momentum = optax.trace(config.momentum, nesterov=True)
    parts: dict[Hashable, optax.GradientTransformation] = {
        "matrix": optax.chain(momentum, scale_by_orthogonal(matrices, config.ns_steps)),
        "other": _adam(config),
    }
    labels = {path: "matrix" if path in matrices else "other" for path in decay_mask}
    rates = {**rate_scales, **{path: matrix.rate for path, matrix in matrices.items()}}
    return _with_decay(optax.partition(parts, labels), config, decay_mask, rates)


Optimizer = Callable[[OptimizerConfig, DecayMask, RateScales, Matrices], optax.GradientTransformation]

OPTIMIZERS: dict[str, Optimizer] = {"adamw": adamw, "lion": lion, "muon": muon}


def make_optimizer(
    config: OptimizerConfig, decay_mask: DecayMask, rate_scales: RateScales, matrices: Matrices = NO_MATRICES
) -> optax.GradientTransformation:
    """Build the descent direction, before the learning rate. Raises UserError for an unknown name.
    `matrices`: the parameters that muon orthogonalises (`hidden_matrices`); muon needs at least one."""
    if config.name not in OPTIMIZERS:
        raise UserError(
            f"optimizer.name={config.name}: no such optimizer; {did_you_mean(config.name, OPTIMIZERS)}"
        )
    return OPTIMIZERS[config.name](config, decay_mask, rate_scales, matrices)


def _adam(config: OptimizerConfig) -> optax.GradientTransformation:
    return optax.scale_by_adam(config.b1, config.b2, config.epsilon)


def _with_decay(
    direction: optax.GradientTransformation,
    config: OptimizerConfig,
    decay_mask: DecayMask,
    rate_scales: RateScales,
) -> optax.GradientTransformation:
    """Chain direction, per-path scales, decay. Decay comes last, so its share is the same at every width."""
    return optax.chain(
        direction,
        *([_scale_per_path(rate_scales)] if any(scale != 1 for scale in rate_scales.values()) else []),
        optax.add_decayed_weights(config.weight_decay, mask=decay_mask),
    )


def _check_muon(config: OptimizerConfig, matrices: Matrices) -> None:
    if config.ns_steps < 1:
        raise UserError(
            f"optimizer.ns_steps={config.ns_steps} does not orthogonalise. Give 1 or more, such as 5."
        )
    if not 0 <= config.momentum < 1:
        raise UserError(
            f"optimizer.momentum={config.momentum} is outside [0, 1). Give a number below 1, such as 0.95."
        )
    if not matrices:
        raise UserError("optimizer.name=muon: the model has no hidden matrix. Choose optimizer=adamw.")


def _scale_per_path(rate_scales: RateScales) -> optax.GradientTransformation:
    def scale(updates: optax.Updates, params: optax.Params | None) -> optax.Updates:
        return jax.tree.map(lambda update, factor: update * factor, updates, dict(rate_scales))

    return optax.stateless(scale)
