"""Blocks: how attention and feed-forward layer meet the residual stream."""

from harness.models.blocks import pre_norm

__all__ = ["pre_norm"]
