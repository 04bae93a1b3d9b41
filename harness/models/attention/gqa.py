"""Grouped-query attention: fewer key-value heads than query heads."""

from __future__ import annotations

from dataclasses import dataclass

from harness.models.attention import grouped_query


@dataclass(frozen=True, kw_only=True)
class GQAOptions(grouped_query.ScoreOptions):
    """Options of `gqa`."""

    kv_heads: int
    """Number of key-value heads."""


@grouped_query.register_softmax("gqa", GQAOptions)
class GroupedQueryAttention(grouped_query.SoftmaxAttention):
    """Grouped-query attention (arXiv:2305.13245): several query heads share one key-value head."""
