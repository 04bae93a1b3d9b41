"""Attention mechanisms, one file each. Importing this package registers them."""

from harness.models.attention import (
    convolved,
    gated,
    gated_delta,
    gqa,
    layer_pattern,
    mha,
    mla,
    nope,
    window,
)

__all__ = ["convolved", "gated", "gated_delta", "gqa", "layer_pattern", "mha", "mla", "nope", "window"]
