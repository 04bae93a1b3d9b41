"""Grouped-query attention (arXiv:2305.13245): several query heads share one key-value head."""

from __future__ import annotations

from dataclasses import dataclass

from harness.models.attention import grouped_query
from harness.models.mechanism import LayerContext
from harness.models.registry import register_attention


@dataclass(frozen=True, kw_only=True)
class GQAOptions(grouped_query.ScoreOptions):
    """Options of `gqa`."""

    kv_heads: int
    """Number of key-value heads."""


@register_attention(
    "gqa",
    GQAOptions,
    model_flops=lambda context, options: grouped_query.model_flops(context, options.kv_heads),
    executed_flops=lambda context, options: grouped_query.executed_flops(context, options.kv_heads),
    cache_bytes=lambda context, options, bytes_per_value: grouped_query.cache_bytes(
        context, bytes_per_value, options.kv_heads
    ),
    supports_sequence_parallel=grouped_query.supports_sequence_parallel,
)
class GroupedQueryAttention(grouped_query.SoftmaxAttention):
    """Softmax attention with `kv_heads` key-value heads."""

    def __init__(self, context: LayerContext, options: GQAOptions):
        super().__init__(context, options.kv_heads, scores=options)
