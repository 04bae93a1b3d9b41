"""Attention without positions (arXiv:2305.19466): order is left to the causal mask.

Alone it makes a model without rotary positions; in a `pattern`, layers without them among those with.
"""

from __future__ import annotations

from jax import Array

from harness.models.attention import core
from harness.models.contract import Site
from harness.models.layers import RMSNorm, Rotary
from harness.models.registry import attention


@attention(
    "nope",
    core.Grouped,
    model_flops=lambda site, options: core.model_flops(site, options.kv_heads),
    executed_flops=lambda site, options: core.executed_flops(site, options.kv_heads),
    cache_bytes=lambda site, options, each: core.cache_bytes(site, each, options.kv_heads),
    splits=core.splits,
)
class UnpositionedAttention(core.Attention):
    def __init__(self, site: Site, options: core.Grouped):
        super().__init__(site, options.kv_heads, scores=options)

    def _positioned(self, x_BTHK: Array, norm: RMSNorm | None, rotary: Rotary) -> Array:
        x_BHTK = x_BTHK.swapaxes(1, 2)
        return norm(x_BHTK) if norm else x_BHTK
