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
"""By parameter path, whether weight decay applies: matrices yes, gains no."""

RateScales = Mapping[str, float]
"""By parameter path, what Adam's learning rate is multiplied by (`models.mup`)."""

NO_MATRICES: Matrices = MappingProxyType({})


def adamw(
    config: OptimizerConfig, decay_mask: DecayMask, rate_scales: RateScales, matrices: Matrices
) -> optax.GradientTransformation:
    """Decoupled weight decay (Loshchilov and Hutter, 2019), decay scaled by the learning rate."""
    return _with_decay(_adam(config), config, decay_mask, rate_scales)


def lion(
    config: OptimizerConfig, decay_mask: DecayMask, rate_scales: RateScales, matrices: Matrices
) -> optax.GradientTransformation:
    """The sign of a momentum, decoupled decay (arXiv:2302.06675, algorithm 2).

    Its updates are of Adam's size and rank, so they carry across width as Adam's do.
    """
    return _with_decay(optax.scale_by_lion(config.b1, config.b2), config, decay_mask, rate_scales)


def muon(
    config: OptimizerConfig, decay_mask: DecayMask, rate_scales: RateScales, matrices: Matrices
) -> optax.GradientTransformation:
    """Orthogonal updates of Adam's size for hidden matrices (arXiv:2502.16982), Adam's for the rest."""
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
    """The direction of descent, before the learning rate. Raises UserError for an unknown name.

    `matrices` are those that an optimizer may take as matrices (`matrices_of` a model): muon needs some.
    """
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
    """The scales of single paths stand before the decay: it takes the same share a step at every width."""
    return optax.chain(
        direction,
        *([_scale_per_path(rate_scales)] if any(scale != 1 for scale in rate_scales.values()) else []),
        optax.add_decayed_weights(config.weight_decay, mask=decay_mask),
    )


def _check_muon(config: OptimizerConfig, matrices: Matrices) -> None:
    if config.ns_steps < 1:
        raise UserError(
            f"optimizer.ns_steps={config.ns_steps} orthogonalises nothing: give 1 or more, such as 5"
        )
    if not 0 <= config.momentum < 1:
        raise UserError(
            f"optimizer.momentum={config.momentum} is outside [0, 1): give one below 1, such as 0.95"
        )
    if not matrices:
        raise UserError("optimizer.name=muon: the model has no hidden matrix; choose optimizer=adamw")


def _scale_per_path(rate_scales: RateScales) -> optax.GradientTransformation:
    def scale(updates: optax.Updates, params: optax.Params | None) -> optax.Updates:
        return jax.tree.map(lambda update, factor: update * factor, updates, dict(rate_scales))

    return optax.stateless(scale)
