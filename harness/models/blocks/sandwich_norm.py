"""Norms before and after each branch: x + norm(f(norm(x))), the sandwich norm (arXiv:2105.13290,
section 3.2).

With a norm of the embedding too it is peri-norm (arXiv:2502.02732, section 3).
"""

from __future__ import annotations

from collections.abc import Callable

from flax import nnx
from jax import Array

from harness.config.socket_registry import NoOptions
from harness.models.mechanism import LayerContext
from harness.models.sockets.entries import register_block


@register_block("sandwich_norm", scans=True)
class SandwichNorm(nnx.Module):
    """Residual layer that normalises the input and the output of each branch."""

    def __init__(self, context: LayerContext, options: NoOptions):
        D = context.shape.width
        self.attention_norm, self.attention_output_norm = context.norm(D), context.norm(D)
        self.feedforward_norm, self.feedforward_output_norm = context.norm(D), context.norm(D)

    def __call__(
        self, x_BTD: Array, attend: Callable[[Array], Array], feed: Callable[[Array], Array]
    ) -> Array:
        """Map the stream [B, T, D] to the stream after both branches."""
        x_BTD = x_BTD + self.attention_output_norm(attend(self.attention_norm(x_BTD)))
        return x_BTD + self.feedforward_output_norm(feed(self.feedforward_norm(x_BTD)))


class NormOfEmbedding(nnx.Module):
    """A stream that starts with a norm of the embedding."""

    def __init__(self, context: LayerContext, options: NoOptions):
        self.norm = context.norm(context.shape.width)

    def open(self, x_BTD: Array) -> Array:
        """Return the input of the first layer."""
        return self.norm(x_BTD)

    def close(self, x_BTD: Array) -> Array:
        """Return the output of the last layer as it is."""
        return x_BTD


@register_block("peri_norm", scans=True, stream=NormOfEmbedding)
class PeriNorm(SandwichNorm):
    """Residual layer that normalises the input and the output of each branch, after a norm of the
    embedding."""
