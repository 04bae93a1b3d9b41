"""The parallel block: x + attention(norm(x)) + feedforward(norm(x)), one norm (GPT-J; arXiv:2204.02311,
section 2)."""

from __future__ import annotations

from collections.abc import Callable

from flax import nnx
from jax import Array

from harness.config.socket_registry import NoOptions
from harness.models.mechanism import LayerContext
from harness.models.sockets.entries import register_block


@register_block("parallel", scans=True)
class Parallel(nnx.Module):
    """Residual layer whose branches read the same input."""

    def __init__(self, context: LayerContext, options: NoOptions):
        self.norm = context.norm(context.shape.width)

    def __call__(
        self, x_BTD: Array, attend: Callable[[Array], Array], feed: Callable[[Array], Array]
    ) -> Array:
        """Map the stream [B, T, D] to the stream after both branches."""
        input_BTD = self.norm(x_BTD)
        return x_BTD + attend(input_BTD) + feed(input_BTD)
