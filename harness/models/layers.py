"""Building blocks of every model: products with weights, RMSNorm, rotary position embeddings."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from harness.config.schema.run import Precision
from harness.models.parameters import gain
from harness.parallel.sharding.axis_rules import out_sharding, reshape
from harness.parallel.sharding.sequence_parallel import local_shard, mark_varying, num_shards

DTYPES = {Precision.float32: jnp.float32, Precision.bfloat16: jnp.bfloat16}


def gather_weight(param: nnx.Param, dtype: jnp.dtype) -> Array:
    """Return a weight in compute precision, unsharded along `width`. This is the only all-gather of FSDP."""
    axes = [None if axis == "width" else axis for axis in param.axes]
    # Marked before the cast, so that gradients are summed over sequence shards in float32.
    array = jnp.asarray(mark_varying(param[...]), dtype)
    return array if out_sharding() is None else jax.reshard(array, out_sharding(*axes))


def _matmul(x_NI: Array, weight_IO: Array, axes_IO: tuple[str | None, str | None], dtype: jnp.dtype) -> Array:
    """Compute x @ weight in `dtype`; the gradient of the weight is also a product that contracts the last
    axis.

    XLA's CPU library takes only such products. By default the gradient contracts the first axis, and XLA's
    fallback splits that sum over the threads of the process, so its bits would depend on other work on the
    machine.
    """
    return _matmul_forward(x_NI, weight_IO, axes_IO, dtype)[0]


matmul = jax.custom_vjp(_matmul, nondiff_argnums=(2, 3))


def _matmul_forward(x_NI, weight_IO, axes_IO, dtype):
    layout_NO = out_sharding("batch", axes_IO[1])
    y_NO = jnp.dot(x_NI, weight_IO, preferred_element_type=dtype, out_sharding=layout_NO)
    return y_NO, (x_NI, weight_IO)


def _matmul_backward(axes_IO, dtype, residuals, dy_NO):
    x_NI, weight_IO = residuals
    layout_NI = out_sharding("batch", axes_IO[0])
    dx_NI = jnp.dot(dy_NO, weight_IO.T, preferred_element_type=dtype, out_sharding=layout_NI)
    x_IN = jax.lax.optimization_barrier(x_NI.T)  # else XLA folds the transpose into the product
    dweight_IO = jnp.dot(x_IN, dy_NO, preferred_element_type=dtype, out_sharding=out_sharding(*axes_IO))
    return dx_NI.astype(x_NI.dtype), jax.lax.optimization_barrier(dweight_IO).astype(weight_IO.dtype)


matmul.defvjp(_matmul_forward, _matmul_backward)


def project(x_BT: Array, param: nnx.Param) -> Array:
    """Compute x @ weight, contracting all axes of x after batch and time with the leading axes of the weight.

    Batch and time become one matrix axis, as do the contracted axes and the new axes, because CPU libraries
    are fastest at one plain matrix product.
    """
    contracted = x_BT.ndim - 2
    axes_in, axes_out = param.axes[:contracted], param.axes[contracted:]
    shape_out = param.shape[contracted:]
    rows, columns = math.prod(x_BT.shape[:2]), math.prod(x_BT.shape[2:])
    split_in = axes_in[0] if axes_in[0] != "width" else None
    split_out = axes_out[0] if axes_out[0] != "width" else None
    x_NI = reshape(x_BT, (rows, columns), "batch", split_in)
    full_weight, shape_IO = gather_weight(param, x_BT.dtype), (columns, math.prod(shape_out))
    weight_IO = reshape(full_weight, shape_IO, split_in, split_out)
    y_NO = matmul(x_NI, weight_IO, (split_in, split_out), x_BT.dtype)
    inner_axes = (None,) * (len(shape_out) - 1)
    return reshape(y_NO, (*x_BT.shape[:2], *shape_out), "batch", None, split_out, *inner_axes)


def rms_normalise(x: Array, epsilon: float) -> Array:
    """Return x / rms(x) over the last axis, in float32."""
    wide = x.astype(jnp.float32)
    return wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + epsilon)


class RMSNorm(nnx.Module):
    """x / rms(x) * gain over the last axis, in float32 (arXiv:1910.07467)."""

    def __init__(self, size: int, epsilon: float, axis: str | None = "width"):
        self.gain = gain(size, axis)
        self.epsilon = epsilon

    def __call__(self, x: Array) -> Array:
        """Normalise [..., D] over its last axis and keep its dtype."""
        return (rms_normalise(x, self.epsilon) * gather_weight(self.gain, jnp.float32)).astype(x.dtype)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Rotary:
    """Rotation of each pair (k, k + K/2) by position times base^(-2k/K) (RoPE, arXiv:2104.09864)."""

    cos_TJ: Array
    sin_TJ: Array
    document_BT: Array | None = None
    """Index of each token's document in its sequence, from 0; None if documents are not masked."""
    sequence_shards: int = field(default=1, metadata={"static": True})
    """Number of devices that share the sequence; with several, this table covers one shard."""

    @classmethod
    def table(cls, length: int, head_width: int, base: float, document_BT: Array | None = None) -> Rotary:
        """Build the table of a sequence of `length` tokens."""
        frequency_J = base ** (-jnp.arange(0, head_width, 2) / head_width)
        angle_TJ = jnp.arange(length)[:, None] * frequency_J
        return cls(jnp.cos(angle_TJ), jnp.sin(angle_TJ), document_BT)

    def local_shard(self) -> Rotary:
        """Return this device's shard of the table of a full sequence."""
        document_BT = None if self.document_BT is None else local_shard(self.document_BT)
        return Rotary(local_shard(self.cos_TJ, 0), local_shard(self.sin_TJ, 0), document_BT, num_shards())

    def __call__(self, x_BHTK: Array) -> Array:
        """Rotate queries or keys [B, H, T, K]."""
        low, high = jnp.split(x_BHTK, 2, axis=-1)
        halves = (low * self.cos_TJ - high * self.sin_TJ, high * self.cos_TJ + low * self.sin_TJ)
        return jnp.concatenate(halves, axis=-1).astype(x_BHTK.dtype)
