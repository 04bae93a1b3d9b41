"""Layers of several kinds in turn, as data: a cycle of mechanisms, each with its options.

Sliding windows with a global layer after each (arXiv:2408.00118), three linear layers to one by softmax
(arXiv:2412.06464, section 3.4), layers without positions among those with: all are lists in a config.
"""

from __future__ import annotations

from dataclasses import dataclass

from flax import nnx

from harness.core.errors import UserError
from harness.models.mechanism import LayerContext
from harness.models.registry import ConfiguredModule, register_attention


@dataclass(frozen=True)
class PatternOptions:
    cycle: tuple[ConfiguredModule, ...]
    """Mechanisms of the first layers, `{name, options}` each; the layers after them repeat the cycle."""

    def for_layer(self, context: LayerContext) -> ConfiguredModule:
        return self.cycle[context.layer % len(self.cycle)]


@register_attention(
    "pattern",
    PatternOptions,
    model_flops=lambda context, options: options.for_layer(context).model_flops(context),
    executed_flops=lambda context, options: options.for_layer(context).unreplicated_flops(context),
    cache_bytes=lambda context, options, bytes_per_value: options.for_layer(context).cache_bytes(
        context, bytes_per_value
    ),
    supports_sequence_parallel=lambda context, options: options.for_layer(context).supports_sequence_parallel(
        context
    ),
    period=lambda options: len(options.cycle),
)
def pattern(context: LayerContext, options: PatternOptions) -> nnx.Module:
    """The mechanism of one layer itself, so that its parameters have the paths that they have alone."""
    place = f"model.attention.options.cycle[{context.layer % len(options.cycle)}]"
    chosen = options.for_layer(context)
    if chosen.period != 1:
        raise UserError(f"{place}.name={chosen.mechanism.name} is a pattern itself: write its layers out.")
    try:
        return chosen.build(context)
    except UserError as error:
        raise UserError(str(error).replace("model.attention.options", f"{place}.options")) from error
