"""Layer scale: x + g * f(norm(x)) with a learned gain g of each channel, small at the start
(arXiv:2103.17239, section 2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flax import nnx
from jax import Array

from harness.models.layers import gather_weight
from harness.models.mechanism import LayerContext
from harness.models.parameters import constant
from harness.models.sockets.entries import register_block


@dataclass(frozen=True)
class LayerScaleOptions:
    """Options of `layer_scale`."""

    initial: float = 1e-4
    """Gain at the start (published: .1 for 18 layers, 1e-5 for 24, 1e-6 for more)."""


@register_block("layer_scale", LayerScaleOptions, scans=True)
class LayerScale(nnx.Module):
    """Residual layer with a gain of each channel on the output of each branch."""

    def __init__(self, context: LayerContext, options: LayerScaleOptions):
        D = context.shape.width
        self.attention_norm, self.feedforward_norm = context.norm(D), context.norm(D)
        self.attention_scale = constant(D, "width", options.initial)
        self.feedforward_scale = constant(D, "width", options.initial)

    def __call__(
        self, x_BTD: Array, attend: Callable[[Array], Array], feed: Callable[[Array], Array]
    ) -> Array:
        """Map the stream [B, T, D] to the stream after both branches."""
        y_BTD = attend(self.attention_norm(x_BTD))
        x_BTD = x_BTD + gather_weight(self.attention_scale, y_BTD.dtype) * y_BTD
        y_BTD = feed(self.feedforward_norm(x_BTD))
        return x_BTD + gather_weight(self.feedforward_scale, y_BTD.dtype) * y_BTD
