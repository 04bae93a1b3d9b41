"""A repeating pattern of attention mechanisms over the layers, as data: a cycle of `{name, options}`.

Examples, each a list in a config: sliding windows with global layers in between (arXiv:2408.00118), three
linear layers to one softmax layer (arXiv:2412.06464, section 3.4), layers with and without positions.
"""

from __future__ import annotations

from dataclasses import dataclass

from flax import nnx

from harness.core.errors import UserError
from harness.models.mechanism import NO_PERIOD, LayerContext
from harness.models.registry import ConfiguredModule, register_attention


@dataclass(frozen=True)
class PatternOptions:
    """Options of `pattern`."""

    cycle: tuple[ConfiguredModule, ...]
    """Mechanisms of the layers in turn, each `{name, options}`; later layers repeat the cycle."""
    first: tuple[ConfiguredModule, ...] = ()
    """Mechanisms of the first layers, before the cycle. With these, layers are not scanned."""

    @property
    def period(self) -> int:
        """Number of layers after which the pattern repeats."""
        differs = self.first or any(module.period == NO_PERIOD for module in self.cycle)
        return NO_PERIOD if differs else len(self.cycle)

    def for_layer(self, context: LayerContext) -> ConfiguredModule:
        """Return the mechanism of a layer."""
        return self._place(context)[1]

    def build(self, context: LayerContext, key: str) -> nnx.Module:
        """Build the mechanism of one layer itself: its parameters have the same paths as outside a pattern.
        `key` is the pattern's node in the config."""
        place, module = self._place(context)
        if module.period not in (1, NO_PERIOD):
            raise UserError(
                f"{key}.options.{place}.name={module.name} is a pattern itself. List its layers instead."
            )
        try:
            return module.build(context)
        except UserError as error:
            inner = f"{key}.options.{place}.options"
            raise UserError(str(error).replace(f"{key}.options", inner)) from error

    def _place(self, context: LayerContext) -> tuple[str, ConfiguredModule]:
        """Return the place in the config of a layer's mechanism, and the mechanism."""
        if context.layer < len(self.first):
            return f"first[{context.layer}]", self.first[context.layer]
        index = (context.layer - len(self.first)) % len(self.cycle)
        return f"cycle[{index}]", self.cycle[index]


@register_attention(
    "pattern",
    PatternOptions,
    model_flops=lambda context, options: options.for_layer(context).model_flops(context),
    executed_flops=lambda context, options: options.for_layer(context).unreplicated_flops(context),
    cache_bytes=lambda context, options, size: options.for_layer(context).cache_bytes(context, size),
    supports_sequence_parallel=lambda context, options: options.for_layer(context).supports_sequence_parallel(
        context
    ),
    period=lambda options: options.period,
    kernel=lambda context, options: options.for_layer(context).kernel(context),
)
def pattern(context: LayerContext, options: PatternOptions) -> nnx.Module:
    """Build the attention of one layer."""
    return options.build(context, "model.attention")
