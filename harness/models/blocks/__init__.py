"""Blocks: how attention and feed-forward layer meet the residual stream."""

from harness.models.blocks import (
    attention_residuals,
    hyper_connections,
    layer_scale,
    parallel,
    pre_norm,
    sandwich_norm,
)

__all__ = [
    "attention_residuals",
    "hyper_connections",
    "layer_scale",
    "parallel",
    "pre_norm",
    "sandwich_norm",
]
