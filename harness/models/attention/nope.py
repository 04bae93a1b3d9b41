"""Attention without position embeddings."""

from __future__ import annotations

from jax import Array

from harness.models.attention import grouped_query
from harness.models.layers import Rotary


@grouped_query.register_softmax("nope", grouped_query.GroupedOptions)
class UnpositionedAttention(grouped_query.SoftmaxAttention):
    """Attention without position embeddings (arXiv:2305.19466): only the causal mask tells the order.

    On its own it makes a model without rotary positions; in a `pattern`, it alternates with layers that have
    them.
    """

    def rotate(self, x_BHTK: Array, rotary: Rotary) -> Array:
        """Return queries or keys as they are."""
        return x_BHTK
