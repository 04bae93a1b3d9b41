"""A pattern of feed-forward layers over the layers of a model, as that of attention: the first layers dense
and all others with experts (DeepSeek-V3, arXiv:2412.19437), or dense layers and experts in turn (Llama 4)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from flax import nnx
from jax import Array

from harness.core.errors import UserError
from harness.models.attention.layer_pattern import PatternOptions
from harness.models.mechanism import LayerContext, RouterStats
from harness.models.registry import ConfiguredModule, register_feedforward

KEY = "model.feedforward"


def _update(options: PatternOptions, params: Mapping[str, Array], signals: RouterStats) -> dict[str, Array]:
    """Return what the rules of the pattern's mechanisms change after a step. A rule that misses a parameter
    is that of other layers."""
    changed: dict[str, Array] = {}
    for module in _with_updates(options):
        with contextlib.suppress(KeyError):
            changed |= module.update_after_step(params, signals)
    return changed


def _with_updates(options: PatternOptions) -> list[ConfiguredModule]:
    """Return the distinct mechanisms that have a rule for after a step."""
    modules: list[ConfiguredModule] = []
    for module in (*options.first, *options.cycle):
        if module.entry.update_after_step is not None and module not in modules:
            modules.append(module)
    return modules


def _moves_bias(module: ConfiguredModule) -> bool:
    return getattr(module.options, "balance", None) == "bias"


@register_feedforward(
    "pattern",
    PatternOptions,
    model_flops=lambda context, options: options.for_layer(context).model_flops(context),
    executed_flops=lambda context, options: options.for_layer(context).unreplicated_flops(context),
    supports_sequence_parallel=lambda context, options: options.for_layer(context).supports_sequence_parallel(
        context
    ),
    period=lambda options: options.period,
    inactive_parameters=lambda context, options: options.for_layer(context).inactive_parameters(context),
    update_after_step=_update,
    kernel=lambda context, options: options.for_layer(context).kernel(context),
)
def layers_in_turn(context: LayerContext, options: PatternOptions) -> nnx.Module:
    """Build the feed-forward layer of one layer. Raises UserError if two of them have routers with options of
    their own: after a step, one rule moves the routers of all layers."""
    if len(routers := [*filter(_moves_bias, _with_updates(options))]) > 1:
        names = " and ".join(module.name for module in routers)
        raise UserError(
            f"{KEY}.options lists {names}, whose routers differ. Give all of them the same options."
        )
    return options.build(context, KEY)
