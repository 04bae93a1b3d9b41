"""Attention without positions (arXiv:2305.19466): order is left to the causal mask.

Alone it makes a model without rotary positions; in a `pattern`, layers without them among those with.
"""

from __future__ import annotations

from jax import Array

from harness.models.attention import grouped_query
from harness.models.layers import RMSNorm, Rotary
from harness.models.mechanism import Site
from harness.models.registry import attention


@attention(
    "nope",
    grouped_query.Grouped,
    model_flops=lambda site, options: grouped_query.model_flops(site, options.kv_heads),
    executed_flops=lambda site, options: grouped_query.executed_flops(site, options.kv_heads),
    cache_bytes=lambda site, options, each: grouped_query.cache_bytes(site, each, options.kv_heads),
    splits=grouped_query.splits,
)
class UnpositionedAttention(grouped_query.Attention):
    def __init__(self, site: Site, options: grouped_query.Grouped):
        super().__init__(site, options.kv_heads, scores=options)

    def _positioned(self, x_BTHK: Array, norm: RMSNorm | None, rotary: Rotary) -> Array:
        x_BHTK = x_BTHK.swapaxes(1, 2)
        return norm(x_BHTK) if norm else x_BHTK
