"""Dynamic tanh (DyT, arXiv:2503.10622): gain * tanh(alpha x) + bias, without any statistic of x."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from flax import nnx
from jax import Array

from harness.core.errors import UserError
from harness.models.layers import gather_weight
from harness.models.mechanism import LayerContext
from harness.models.norms.norm_registry import register_norm
from harness.models.parameters import constant, gain

FLOAT32 = jnp.dtype(jnp.float32)


@dataclass(frozen=True)
class DynamicTanhOptions:
    """Options of `dynamic_tanh`."""

    alpha: float = 0.5
    """Initial slope at 0 (published: .5; larger for narrow models)."""


@register_norm("dynamic_tanh", DynamicTanhOptions)
class DynamicTanh(nnx.Module):
    """Elementwise squashing with one learned slope, in float32."""

    def __init__(self, size: int, axis: str | None, context: LayerContext, options: DynamicTanhOptions):
        if options.alpha <= 0:
            raise UserError(
                f"model.norm.options.alpha={options.alpha} must be above 0: at 0 nothing passes the norm."
                " The published value is 0.5."
            )
        self.alpha = constant(1, None, options.alpha)
        self.gain = gain(size, axis)
        self.bias = constant(size, axis, 0.0)

    def __call__(self, x: Array) -> Array:
        """Map [..., D] to the same shape and dtype."""
        slope, gain, bias = (gather_weight(param, FLOAT32) for param in (self.alpha, self.gain, self.bias))
        return (gain * jnp.tanh(slope * x.astype(FLOAT32)) + bias).astype(x.dtype)
