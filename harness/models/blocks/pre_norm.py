"""The pre-norm block: x + attention(norm(x)), then x + feedforward(norm(x)) (arXiv:2002.04745)."""

from __future__ import annotations

from collections.abc import Callable

from flax import nnx
from jax import Array

from harness.config.socket_registry import NoOptions
from harness.models.mechanism import LayerContext
from harness.models.sockets.entries import register_block


@register_block("pre_norm", scans=True)
class PreNorm(nnx.Module):
    """Residual layer that normalises the input of each branch."""

    def __init__(self, context: LayerContext, options: NoOptions):
        self.attention_norm = context.norm(context.shape.width)
        self.feedforward_norm = context.norm(context.shape.width)

    def __call__(
        self, x_BTD: Array, attend: Callable[[Array], Array], feed: Callable[[Array], Array]
    ) -> Array:
        """Map the stream [B, T, D] to the stream after both branches."""
        x_BTD = x_BTD + attend(self.attention_norm(x_BTD))
        return x_BTD + feed(self.feedforward_norm(x_BTD))
