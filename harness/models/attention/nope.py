"""Attention without position embeddings (arXiv:2305.19466): only the causal mask tells the order.

On its own it makes a model without rotary positions; in a `pattern`, it alternates with layers that have
them.
"""

from __future__ import annotations

from jax import Array

from harness.models.attention import grouped_query
from harness.models.layers import RMSNorm, Rotary
from harness.models.mechanism import LayerContext


@grouped_query.register_softmax("nope", grouped_query.GroupedOptions)
class UnpositionedAttention(grouped_query.SoftmaxAttention):
    """Softmax attention that does not rotate queries and keys."""

    def __init__(self, context: LayerContext, options: grouped_query.GroupedOptions):
        super().__init__(context, options.kv_heads, scores=options)

    def _rotated(self, x_BTHK: Array, norm: RMSNorm | None, rotary: Rotary) -> Array:
        x_BHTK = x_BTHK.swapaxes(1, 2)
        return norm(x_BHTK) if norm else x_BHTK
