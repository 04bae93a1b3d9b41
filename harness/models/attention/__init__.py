"""Attention mechanisms, one file each. Importing this package registers them."""

from harness.models.attention import (
    convolved,
    gated,
    gated_delta,
    gqa,
    indexed,
    layer_pattern,
    mha,
    mla,
    nope,
    state_space,
    window,
)

__all__ = [
    "convolved",
    "gated",
    "gated_delta",
    "gqa",
    "indexed",
    "layer_pattern",
    "mha",
    "mla",
    "nope",
    "state_space",
    "window",
]
