"""Multi-head attention (arXiv:1706.03762): every head has keys and values of its own."""

from __future__ import annotations

from harness.models.attention import core
from harness.models.contract import Site
from harness.models.registry import attention


@attention(
    "mha",
    core.Scores,
    model_flops=lambda site, options: core.model_flops(site),
    executed_flops=lambda site, options: core.executed_flops(site),
    cache_bytes=lambda site, options, each: core.cache_bytes(site, each),
    splits=core.splits,
)
class MultiHeadAttention(core.Attention):
    def __init__(self, site: Site, options: core.Scores):
        super().__init__(site, scores=options)
