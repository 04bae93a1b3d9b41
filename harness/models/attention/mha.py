"""Multi-head attention (arXiv:1706.03762): every query head has its own keys and values."""

from __future__ import annotations

from harness.models.attention import grouped_query
from harness.models.mechanism import LayerContext
from harness.models.registry import register_attention


@register_attention(
    "mha",
    grouped_query.ScoreOptions,
    model_flops=lambda context, options: grouped_query.model_flops(context),
    executed_flops=lambda context, options: grouped_query.executed_flops(context),
    cache_bytes=lambda context, options, bytes_per_value: grouped_query.cache_bytes(context, bytes_per_value),
    supports_sequence_parallel=grouped_query.supports_sequence_parallel,
)
class MultiHeadAttention(grouped_query.SoftmaxAttention):
    """Softmax attention with one key-value head per query head."""

    def __init__(self, context: LayerContext, options: grouped_query.ScoreOptions):
        super().__init__(context, scores=options)
