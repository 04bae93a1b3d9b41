"""The small parts that every decoder is made of: products with weights, norm, rotary positions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from harness.config.schema import Precision
from harness.models.parameters import gain
from harness.parallel.rules import layout

DTYPES = {Precision.float32: jnp.float32, Precision.bfloat16: jnp.bfloat16}


def gathered(param: nnx.Param, dtype: jnp.dtype) -> Array:
    """A weight in compute precision, whole along `width`: the all-gather of FSDP stands here alone."""
    axes = [None if axis == "width" else axis for axis in param.axes]
    whole = jnp.asarray(param[...], dtype)
    return whole if layout() is None else jax.reshard(whole, layout(*axes))


def project(x_BT: Array, param: nnx.Param) -> Array:
    """x @ weight: contracts all axes of x after batch and time with the leading axes of the weight.

    Batch and time are one matrix axis inside, and so are the axes contracted and the axes made:
    one plain matrix product is what CPU libraries are fastest at.
    """
    contracted = x_BT.ndim - 2
    axes_in, axes_out = param.axes[:contracted], param.axes[contracted:]
    shape_out = param.shape[contracted:]
    rows, inner = math.prod(x_BT.shape[:2]), math.prod(x_BT.shape[2:])
    split_in = axes_in[0] if axes_in[0] != "width" else None
    split_out = axes_out[0] if axes_out[0] != "width" else None
    x_NI = jnp.reshape(x_BT, (rows, inner), out_sharding=layout("batch", split_in))
    weight_IO = jnp.reshape(
        gathered(param, x_BT.dtype), (inner, math.prod(shape_out)), out_sharding=layout(split_in, split_out)
    )
    y_NO = jnp.dot(x_NI, weight_IO, out_sharding=layout("batch", split_out))
    rest = (None,) * (len(shape_out) - 1)
    return jnp.reshape(
        y_NO, (*x_BT.shape[:2], *shape_out), out_sharding=layout("batch", None, split_out, *rest)
    )


class RMSNorm(nnx.Module):
    """x / rms(x) * gain over the last axis, in float32 (arXiv:1910.07467)."""

    def __init__(self, size: int, epsilon: float, axis: str | None = "width"):
        self.gain = gain(size, axis)
        self.epsilon = epsilon

    def __call__(self, x: Array) -> Array:
        wide = x.astype(jnp.float32)
        scale = jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + self.epsilon)
        return (wide * scale * gathered(self.gain, jnp.float32)).astype(x.dtype)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Rotary:
    """Rotation of each pair (k, k + K/2) by position times base^(-2k/K) (arXiv:2104.09864)."""

    cos_TK: Array
    sin_TK: Array

    @classmethod
    def table(cls, length: int, head_width: int, base: float) -> Rotary:
        frequency_K = base ** (-jnp.arange(0, head_width, 2) / head_width)
        angle_TK = jnp.arange(length)[:, None] * jnp.concatenate([frequency_K, frequency_K])
        return cls(jnp.cos(angle_TK), jnp.sin(angle_TK))

    def __call__(self, x_BHTK: Array) -> Array:
        """Queries or keys with time as the axis before the last."""
        low, high = jnp.split(x_BHTK, 2, axis=-1)
        turned = jnp.concatenate([-high, low], axis=-1)
        return (x_BHTK * self.cos_TK + turned * self.sin_TK).astype(x_BHTK.dtype)
