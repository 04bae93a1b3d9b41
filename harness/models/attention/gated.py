"""Softmax attention with a sigmoid gate on what the heads answer (arXiv:2505.06708, section 2.2).

The form that the paper recommends: after the product with the values, one gate a head and element,
read from the input of the layer. Without its gate it is `gqa`.
"""

from __future__ import annotations

import jax
from jax import Array

from harness.models.attention import grouped_query
from harness.models.layers import Rotary, project
from harness.models.mechanism import Products, Site
from harness.models.parameters import weight
from harness.models.registry import attention


def _gate(site: Site) -> float:
    return 2.0 * site.shape.width * site.shape.heads * site.shape.head_width


@attention(
    "gated",
    grouped_query.Grouped,
    model_flops=lambda site, options: grouped_query.model_flops(site, options.kv_heads) + _gate(site),
    executed_flops=lambda site, options: (
        grouped_query.executed_flops(site, options.kv_heads) + Products(weights=_gate(site))
    ),
    cache_bytes=lambda site, options, each: grouped_query.cache_bytes(site, each, options.kv_heads),
    splits=grouped_query.splits,
)
class GatedAttention(grouped_query.Attention):
    def __init__(self, site: Site, options: grouped_query.Grouped):
        super().__init__(site, options.kv_heads, scores=options)
        D, H, K = site.shape.width, site.shape.heads, site.shape.head_width
        self.gate = weight((D, H, K), ("width", "heads", None), fan_in=D)

    def mix(self, x_BTD: Array, rotary: Rotary) -> Array:
        return super().mix(x_BTD, rotary) * jax.nn.sigmoid(project(x_BTD, self.gate))
