"""Multi-head attention (arXiv:1706.03762): every head has keys and values of its own."""

from __future__ import annotations

from dataclasses import dataclass

from harness.models.attention import core
from harness.models.contract import Site
from harness.models.registry import attention


@dataclass(frozen=True)
class Options:
    """None to choose."""


@attention(
    "mha",
    Options,
    model_flops=lambda site, options: core.model_flops(site, site.shape.heads),
    executed_flops=lambda site, options: core.executed_flops(site, site.shape.heads),
)
class MultiHeadAttention(core.Attention):
    def __init__(self, site: Site, options: Options):
        super().__init__(site, kv_heads=site.shape.heads)
