"""Grouped-query attention (arXiv:2305.13245): several query heads share one head of keys and values."""

from __future__ import annotations

from dataclasses import dataclass

from harness.models.attention import grouped_query
from harness.models.mechanism import Site
from harness.models.registry import attention


@dataclass(frozen=True, kw_only=True)
class Options(grouped_query.Scores):
    kv_heads: int


@attention(
    "gqa",
    Options,
    model_flops=lambda site, options: grouped_query.model_flops(site, options.kv_heads),
    executed_flops=lambda site, options: grouped_query.executed_flops(site, options.kv_heads),
    cache_bytes=lambda site, options, each: grouped_query.cache_bytes(site, each, options.kv_heads),
    splits=grouped_query.splits,
)
class GroupedQueryAttention(grouped_query.Attention):
    def __init__(self, site: Site, options: Options):
        super().__init__(site, options.kv_heads, scores=options)
