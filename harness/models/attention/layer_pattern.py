"""A repeating pattern of attention mechanisms over the layers, as data: a cycle of `{name, options}`.

Examples, each a list in a config: sliding windows with global layers in between (arXiv:2408.00118), three
linear layers to one softmax layer (arXiv:2412.06464, section 3.4), layers with and without positions.
"""

from __future__ import annotations

from dataclasses import dataclass

from flax import nnx

from harness.core.errors import UserError
from harness.models.mechanism import LayerContext
from harness.models.registry import ConfiguredModule, register_attention


@dataclass(frozen=True)
class PatternOptions:
    """Options of `pattern`."""

    cycle: tuple[ConfiguredModule, ...]
    """Mechanisms of the first layers, each `{name, options}`; later layers repeat the cycle."""

    def for_layer(self, context: LayerContext) -> ConfiguredModule:
        """Return the mechanism of a layer."""
        return self.cycle[context.layer % len(self.cycle)]


@register_attention(
    "pattern",
    PatternOptions,
    model_flops=lambda context, options: options.for_layer(context).model_flops(context),
    executed_flops=lambda context, options: options.for_layer(context).unreplicated_flops(context),
    cache_bytes=lambda context, options, size: options.for_layer(context).cache_bytes(context, size),
    supports_sequence_parallel=lambda context, options: options.for_layer(context).supports_sequence_parallel(
        context
    ),
    period=lambda options: len(options.cycle),
    kernel=lambda context, options: options.for_layer(context).kernel(context),
)
def pattern(context: LayerContext, options: PatternOptions) -> nnx.Module:
    """Build the mechanism of one layer itself: its parameters have the same paths as outside a pattern."""
    key = f"model.attention.options.cycle[{context.layer % len(options.cycle)}]"
    module = options.for_layer(context)
    if module.period != 1:
        raise UserError(f"{key}.name={module.name} is a pattern itself. List its layers instead.")
    try:
        return module.build(context)
    except UserError as error:
        raise UserError(str(error).replace("model.attention.options", f"{key}.options")) from error
