"""Attention with a gate on the output of each head."""

from __future__ import annotations

import jax
from jax import Array

from harness.models.attention import grouped_query
from harness.models.layers import Rotary, project
from harness.models.mechanism import LayerContext
from harness.models.parameters import weight


def _gate_flops(context: LayerContext, options: grouped_query.GroupedOptions) -> float:
    return 2.0 * context.shape.width * context.shape.heads * context.shape.head_width


@grouped_query.register_softmax("gated", grouped_query.GroupedOptions, _gate_flops)
class GatedAttention(grouped_query.SoftmaxAttention):
    """Attention whose head outputs are multiplied by a sigmoid gate (arXiv:2505.06708, section 2.2).

    This is the form that the paper recommends: after the product with the values, one gate per head and
    element, computed from the layer's input. Without the gate it is `gqa`.
    """

    def __init__(self, context: LayerContext, options: grouped_query.GroupedOptions):
        super().__init__(context, options)
        D, H, K = context.shape.width, context.shape.heads, context.shape.head_width
        self.gate = weight((D, H, K), ("width", "heads", None), fan_in=D)

    def attend_heads(self, x_BTD: Array, rotary: Rotary) -> Array:
        """Return the gated head outputs [B, T, H, K]."""
        return super().attend_heads(x_BTD, rotary) * jax.nn.sigmoid(project(x_BTD, self.gate))
