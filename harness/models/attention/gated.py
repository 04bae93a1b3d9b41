"""Softmax attention with a sigmoid gate on the heads' outputs (arXiv:2505.06708, section 2.2).

This is the form that the paper recommends: after the product with the values, one gate per head and element,
computed from the layer's input. Without the gate it is `gqa`.
"""

from __future__ import annotations

import jax
from jax import Array

from harness.models.attention import grouped_query
from harness.models.layers import Rotary, project
from harness.models.mechanism import LayerContext, MatmulFlops
from harness.models.parameters import weight
from harness.models.registry import register_attention


def _gate_flops(context: LayerContext) -> float:
    return 2.0 * context.shape.width * context.shape.heads * context.shape.head_width


@register_attention(
    "gated",
    grouped_query.GroupedOptions,
    model_flops=lambda context, options: (
        grouped_query.model_flops(context, options.kv_heads) + _gate_flops(context)
    ),
    executed_flops=lambda context, options: (
        grouped_query.executed_flops(context, options.kv_heads) + MatmulFlops(weights=_gate_flops(context))
    ),
    cache_bytes=lambda context, options, bytes_per_value: grouped_query.cache_bytes(
        context, bytes_per_value, options.kv_heads
    ),
    supports_sequence_parallel=grouped_query.supports_sequence_parallel,
)
class GatedAttention(grouped_query.SoftmaxAttention):
    """Grouped-query attention whose head outputs are multiplied by a learned gate."""

    def __init__(self, context: LayerContext, options: grouped_query.GroupedOptions):
        super().__init__(context, options.kv_heads, scores=options)
        D, H, K = context.shape.width, context.shape.heads, context.shape.head_width
        self.gate = weight((D, H, K), ("width", "heads", None), fan_in=D)

    def attend_heads(self, x_BTD: Array, rotary: Rotary) -> Array:
        """Return the gated head outputs [B, T, H, K]."""
        return super().attend_heads(x_BTD, rotary) * jax.nn.sigmoid(project(x_BTD, self.gate))
