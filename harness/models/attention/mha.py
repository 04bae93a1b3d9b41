"""Multi-head attention (arXiv:1706.03762): every query head has its own keys and values."""

from __future__ import annotations

from harness.models.attention import grouped_query
from harness.models.mechanism import LayerContext


@grouped_query.register_softmax("mha", grouped_query.ScoreOptions)
class MultiHeadAttention(grouped_query.SoftmaxAttention):
    """Softmax attention with one key-value head per query head."""

    def __init__(self, context: LayerContext, options: grouped_query.ScoreOptions):
        super().__init__(context, scores=options)
