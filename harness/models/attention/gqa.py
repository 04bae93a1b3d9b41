"""Grouped-query attention (arXiv:2305.13245): several query heads share one key-value head."""

from __future__ import annotations

from dataclasses import dataclass

from harness.models.attention import grouped_query
from harness.models.mechanism import LayerContext


@dataclass(frozen=True, kw_only=True)
class GQAOptions(grouped_query.ScoreOptions):
    """Options of `gqa`."""

    kv_heads: int
    """Number of key-value heads."""


@grouped_query.register_softmax("gqa", GQAOptions)
class GroupedQueryAttention(grouped_query.SoftmaxAttention):
    """Softmax attention with `kv_heads` key-value heads."""

    def __init__(self, context: LayerContext, options: GQAOptions):
        super().__init__(context, options.kv_heads, scores=options)
