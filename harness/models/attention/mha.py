"""Multi-head attention (arXiv:1706.03762): every head has keys and values of its own."""

from __future__ import annotations

from harness.models.attention import grouped_query
from harness.models.mechanism import Site
from harness.models.registry import attention


@attention(
    "mha",
    grouped_query.Scores,
    model_flops=lambda site, options: grouped_query.model_flops(site),
    executed_flops=lambda site, options: grouped_query.executed_flops(site),
    cache_bytes=lambda site, options, each: grouped_query.cache_bytes(site, each),
    splits=grouped_query.splits,
)
class MultiHeadAttention(grouped_query.Attention):
    def __init__(self, site: Site, options: grouped_query.Scores):
        super().__init__(site, scores=options)
