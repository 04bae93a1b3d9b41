"""LayerNorm (arXiv:1607.06450): (x - mean(x)) / deviation(x) * gain + bias."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from flax import nnx
from jax import Array

from harness.models.layers import gather_weight, rms_normalise
from harness.models.mechanism import LayerContext
from harness.models.norms.norm_registry import register_norm
from harness.models.parameters import constant, gain

FLOAT32 = jnp.dtype(jnp.float32)


@dataclass(frozen=True)
class LayerNormOptions:
    """Options of `layer_norm`."""

    bias: bool = True
    """Add a learned bias."""


@register_norm("layer_norm", LayerNormOptions)
class LayerNorm(nnx.Module):
    """Mean and deviation over the last axis, in float32."""

    def __init__(self, size: int, axis: str | None, context: LayerContext, options: LayerNormOptions):
        self.gain = gain(size, axis)
        self.bias = constant(size, axis, 0.0) if options.bias else None
        self.epsilon = context.norm_epsilon

    def __call__(self, x: Array) -> Array:
        """Normalise [..., D] over its last axis and keep its dtype."""
        wide = x.astype(FLOAT32)
        centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
        y = rms_normalise(centred, self.epsilon) * gather_weight(self.gain, FLOAT32)
        return (y if self.bias is None else y + gather_weight(self.bias, FLOAT32)).astype(x.dtype)
