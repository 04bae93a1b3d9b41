"""Building blocks of every model: products with weights, RMSNorm, rotary position embeddings."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, P

from harness.config.schema.run import Precision
from harness.models.execution.computed_constants import computed_constant
from harness.models.parameters import gain
from harness.models.products.matrix_unit import result_dtype, transpose
from harness.models.products.product_registry import DTYPE, PRODUCTS, Axes, product_of, register_product
from harness.parallel.sharding.axis_rules import (
    out_sharding,
    out_sharding_like,
    reshape,
    reshape_inner,
    reshape_rows,
)
from harness.parallel.sharding.sequence_parallel import local_shard, mark_varying, num_shards

LARGEST_TABLE = 2**19
"""Angles of a table of rotations that is a constant of its program. XLA's CPU code computes others anew for
each head of each sequence, which took a twelfth of a step."""

DTYPES = {Precision.float32: jnp.float32, Precision.bfloat16: jnp.bfloat16}


def gather_weight(param: nnx.Param, dtype: jnp.dtype) -> Array:
    """Return a weight in compute precision, unsharded along `width`."""
    return gather_rounded(param, dtype).astype(dtype)


def gather_rounded(param: nnx.Param, dtype: jnp.dtype, gathered: tuple[str, ...] = ("width",)) -> Array:
    """Return a weight as float32, rounded to compute precision and unsharded along the `gathered` axes. This
    is the only all-gather of FSDP. Devices send the weight in compute precision; its gradient stays float32,
    because what is summed over tokens and devices in bfloat16 loses up to a quarter of itself."""
    # A bfloat16 parameter is widened here: its gradient is rounded after all sums, over devices too.
    array = mark_varying(jnp.asarray(param[...]).astype(jnp.float32))
    split = out_sharding(*(None if axis in gathered else axis for axis in param.axes))
    if array.dtype == dtype:
        return array if split is None else jax.reshard(array, split)
    return _round_and_gather(array, dtype, None if split is None else jax.typeof(array).sharding.spec, split)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _round_and_gather(array: Array, dtype: jnp.dtype, stored: P | None, gathered: P | None) -> Array:
    """Round to `dtype` and reshard from `stored` to `gathered`; the gradient is not rounded."""
    weight = array.astype(dtype)
    return (weight if gathered is None else jax.reshard(weight, gathered)).astype(array.dtype)


_round_and_gather.defvjp(
    lambda array, dtype, stored, gathered: (_round_and_gather(array, dtype, stored, gathered), None),
    lambda dtype, stored, gathered, _, slope: (slope if stored is None else jax.reshard(slope, stored),),
)


def _matmul(x_NI: Array, weight_IO: Array, axes_IO: Axes, dtype: jnp.dtype) -> Array:
    """Compute x @ weight in `dtype`, from a float32 weight that is rounded to the dtype of x, as the gradient
    of the result is; the gradient of the weight is float32, and also a product that contracts the last axis.

    XLA's CPU library takes only such products (`products.matrix_unit`). By default the gradient contracts the
    first axis, and XLA's fallback splits that sum over the threads of the process, so its bits would depend
    on other work on the machine.
    """
    return _matmul_forward(x_NI, weight_IO, axes_IO, dtype)[0]


matmul = jax.custom_vjp(_matmul, nondiff_argnums=(2, 3))


def _matmul_forward(x_NI, weight_IO, axes_IO, dtype):
    layout_NO = out_sharding_like(x_NI, axes_IO[1])
    weight_IO = weight_IO.astype(x_NI.dtype)
    wide = result_dtype(dtype)
    y_NO = jnp.dot(x_NI, weight_IO, preferred_element_type=wide, out_sharding=layout_NO)
    return y_NO.astype(dtype), (x_NI, weight_IO)


def _matmul_backward(axes_IO, dtype, residuals, dy_NO):
    x_NI, weight_IO = residuals
    dy_NO, wide = dy_NO.astype(x_NI.dtype), result_dtype(dtype)
    layout_NI = out_sharding_like(x_NI, axes_IO[0])
    dx_NI = jnp.einsum("no,io->ni", dy_NO, weight_IO, preferred_element_type=wide, out_sharding=layout_NI)
    return dx_NI.astype(x_NI.dtype), jax.lax.optimization_barrier(_weight_gradient(x_NI, dy_NO, axes_IO))


def _weight_gradient(x_NI, dy_NO, axes_IO):
    layout_IO = out_sharding(*axes_IO)
    return jnp.dot(transpose(x_NI), dy_NO, preferred_element_type=jnp.float32, out_sharding=layout_IO)


matmul.defvjp(_matmul_forward, _matmul_backward)


def _matmul_by_rows(x_NI: Array, weight_OI: Array, axes_IO: Axes, dtype: jnp.dtype) -> Array:
    """Compute x @ weight.T as `matmul` does, from a weight with a row for each output, such as the table of a
    head."""
    return _by_rows_forward(x_NI, weight_OI, axes_IO, dtype)[0]


matmul_by_rows = jax.custom_vjp(_matmul_by_rows, nondiff_argnums=(2, 3))


def _by_rows_forward(x_NI, weight_OI, axes_IO, dtype):
    layout_NO, wide = out_sharding_like(x_NI, axes_IO[1]), result_dtype(dtype)
    weight_OI = weight_OI.astype(x_NI.dtype)
    y_NO = jnp.einsum("ni,oi->no", x_NI, weight_OI, preferred_element_type=wide, out_sharding=layout_NO)
    return y_NO.astype(dtype), (x_NI, weight_OI)


def _by_rows_backward(axes_IO, dtype, residuals, dy_NO):
    x_NI, weight_OI = residuals
    dy_NO, wide = dy_NO.astype(x_NI.dtype), result_dtype(dtype)
    layout_NI = out_sharding_like(x_NI, axes_IO[0])
    dx_NI = jnp.dot(dy_NO, weight_OI, preferred_element_type=wide, out_sharding=layout_NI)
    return dx_NI.astype(x_NI.dtype), jax.lax.optimization_barrier(_weight_gradient(x_NI, dy_NO, axes_IO)).T


matmul_by_rows.defvjp(_by_rows_forward, _by_rows_backward)


@register_product(DTYPE)
def plain_product(x_NI: Array, weight_IO: Array, axes_IO: Axes) -> Array:
    """Compute x @ weight in the dtype of x."""
    return matmul(x_NI, weight_IO, axes_IO, x_NI.dtype)


def project(x_BT: Array, param: nnx.Param, *, exact: bool = False) -> Array:
    """Compute x @ weight, contracting all axes of x after batch and time with the leading axes of the weight.
    `exact`: in the dtype of x although `compute.products` asks for fewer bits, as routers and gates need.

    Batch and time become one matrix axis, as do the contracted axes and the new axes, because CPU libraries
    are fastest at one plain matrix product.
    """
    contracted = x_BT.ndim - 2
    axes_in, axes_out = param.axes[:contracted], param.axes[contracted:]
    shape_out = param.shape[contracted:]
    rows, columns = math.prod(x_BT.shape[:2]), math.prod(x_BT.shape[2:])
    split_in = axes_in[0] if axes_in[0] != "width" else None
    split_out = axes_out[0] if axes_out[0] != "width" else None
    x_NI = reshape_rows(x_BT, (rows, columns), split_in)
    full_weight, shape_IO = gather_rounded(param, x_BT.dtype), (columns, math.prod(shape_out))
    weight_IO = reshape(full_weight, shape_IO, split_in, split_out)
    product = PRODUCTS.entries[DTYPE] if exact else product_of(param)
    y_NO = product.implementation(x_NI, weight_IO, (split_in, split_out))
    inner_axes = (None,) * (len(shape_out) - 1)
    return reshape_rows(y_NO, (*x_BT.shape[:2], *shape_out), None, split_out, *inner_axes)


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
    def table(cls, length: int, head_width: int, base: float) -> Rotary:
        """Build the table of a sequence of `length` tokens."""
        pairs = head_width // 2
        if length * pairs > LARGEST_TABLE:
            return cls.of_frequencies(length, base ** (-jnp.arange(0, head_width, 2) / head_width))
        angle_TJ = np.arange(length)[:, None] * base ** (-np.arange(pairs) / pairs)
        cos_TJ, sin_TJ = (computed_constant(turn(angle_TJ), jnp.float32) for turn in (np.cos, np.sin))
        return cls(cos_TJ, sin_TJ)

    @classmethod
    def of_frequencies(cls, length: int, frequency_J: Array, scale: float | Array = 1.0) -> Rotary:
        """Build the table of a sequence of `length` tokens whose pairs turn by `frequency_J` radians a token.
        `scale` multiplies scores."""
        angle_TJ = jnp.arange(length)[:, None] * frequency_J
        if isinstance(scale, float) and scale == 1:
            return cls(jnp.cos(angle_TJ), jnp.sin(angle_TJ))
        factor = jnp.sqrt(scale)
        return cls(factor * jnp.cos(angle_TJ), factor * jnp.sin(angle_TJ))

    def with_documents(self, document_BT: Array | None) -> Rotary:
        """Return the table for sequences of these documents."""
        return replace(self, document_BT=document_BT)

    def local_shard(self) -> Rotary:
        """Return this device's shard of the table of a full sequence."""
        document_BT = None if self.document_BT is None else local_shard(self.document_BT)
        return Rotary(local_shard(self.cos_TJ, 0), local_shard(self.sin_TJ, 0), document_BT, num_shards())

    def __call__(self, x_BHTK: Array) -> Array:
        """Rotate queries or keys [B, H, T, K]."""
        # The halves as an axis: to swap them is no concatenation, which XLA computes in kernels of its own.
        *_, K = x_BHTK.shape
        x_BHT2J = reshape_inner(x_BHTK, x_BHTK.ndim - 1, 2, K // 2)
        cos_T1J, sin_T1J = self.cos_TJ[..., None, :], self.sin_TJ[..., None, :]
        sin_T2J = jnp.array([[-1.0], [1.0]]) * sin_T1J
        rotated_BHT2J = x_BHT2J * cos_T1J + jnp.flip(x_BHT2J, -2) * sin_T2J
        return reshape_inner(rotated_BHT2J, x_BHTK.ndim - 1, K).astype(x_BHTK.dtype)
