"""Sliding-window attention (arXiv:2004.05150); in a `pattern`, it alternates with layers that see all keys."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.errors import UserError
from harness.models.attention import grouped_query
from harness.models.mechanism import LayerContext
from harness.models.registry import register_attention


@dataclass(frozen=True, kw_only=True)
class WindowOptions(grouped_query.GroupedOptions):
    """Options of `window`."""

    window: int
    """Number of keys that a query sees: its own and those just before it."""


@register_attention(
    "window",
    WindowOptions,
    model_flops=lambda context, options: grouped_query.model_flops(context, options.kv_heads, options.window),
    executed_flops=lambda context, options: grouped_query.executed_flops(
        context, options.kv_heads, options.window
    ),
    cache_bytes=lambda context, options, bytes_per_value: grouped_query.cache_bytes(
        context, bytes_per_value, options.kv_heads, options.window
    ),
    supports_sequence_parallel=grouped_query.supports_sequence_parallel,
)
class WindowedAttention(grouped_query.SoftmaxAttention):
    """Softmax attention over the last `window` keys."""

    def __init__(self, context: LayerContext, options: WindowOptions):
        if not 1 <= options.window <= context.sequence_length:
            raise UserError(
                f"model.attention.options.window={options.window} is outside the context."
                f" Choose 1 to data.sequence_length={context.sequence_length}."
            )
        super().__init__(context, options.kv_heads, options.window, options)
