"""Grouped-query attention (arXiv:2305.13245): several query heads share one head of keys and values."""

from __future__ import annotations

from dataclasses import dataclass

from harness.models.attention import core
from harness.models.contract import Site
from harness.models.registry import attention


@dataclass(frozen=True, kw_only=True)
class Options(core.Scores):
    kv_heads: int


@attention(
    "gqa",
    Options,
    model_flops=lambda site, options: core.model_flops(site, options.kv_heads),
    executed_flops=lambda site, options: core.executed_flops(site, options.kv_heads),
    cache_bytes=lambda site, options, each: core.cache_bytes(site, each, options.kv_heads),
    splits=core.splits,
)
class GroupedQueryAttention(core.Attention):
    def __init__(self, site: Site, options: Options):
        super().__init__(site, options.kv_heads, scores=options)
