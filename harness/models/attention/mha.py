"""Multi-head attention, the baseline of every attention experiment."""

from __future__ import annotations

from harness.models.attention import grouped_query


@grouped_query.register_softmax("mha", grouped_query.ScoreOptions)
class MultiHeadAttention(grouped_query.SoftmaxAttention):
    """Multi-head attention (arXiv:1706.03762): every query head has its own keys and values."""
