"""Attention mechanisms. Importing this package registers them."""

from harness.models.attention import gated_delta, layer_pattern, mla, softmax_variants

__all__ = ["gated_delta", "layer_pattern", "mla", "softmax_variants"]
