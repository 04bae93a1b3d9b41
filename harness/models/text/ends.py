"""Defaults of what stands before and after the layers: embedding, positions, head."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jax import Array

from harness.config.socket_registry import NoOptions
from harness.models.mechanism import LayerContext
from harness.models.sockets.entries import register_embedding, register_head, register_position


@register_embedding("table")
class TableRows(nnx.Module):
    """The rows of the table as they are."""

    def __init__(self, context: LayerContext, options: NoOptions):
        pass

    def __call__(self, x_BTD: Array) -> Array:
        """Map the tokens' rows of the table to the input of the first layer."""
        return x_BTD


@register_head("linear")
class Linear(nnx.Module):
    """Products with the rows of the table."""

    def __init__(self, context: LayerContext, options: NoOptions):
        pass

    def __call__(self, x_BTD: Array, unembed: Callable[[Array], Array]) -> Array:
        """Map the normalised output of the last layer to float32 logits [B, T, V]."""
        return unembed(x_BTD)


@register_position("rope")
def rope(context: LayerContext, options: NoOptions) -> Array:
    """Return the frequencies of RoPE in radians a token, [J] (arXiv:2104.09864)."""
    return context.rope_base ** (-jnp.arange(0, context.shape.head_width, 2) / context.shape.head_width)
