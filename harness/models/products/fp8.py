"""Matrix products with factors of 8 bits (FP8), summed in float32.

A tensor is divided by one number, so that its largest value becomes the largest of the format, and rounded.
The number is taken from this tensor in this step, over all devices, so nothing is kept between steps. Factors
of the forward pass are e4m3, gradients of outputs e5m2 (arXiv:2209.05433, section 3.1).

The product is written as a product of rounded values in compute precision, in which they are exact. XLA turns
that into an 8-bit product on a GPU that has one; everywhere else it simulates the rounding.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from harness.models.products.product_registry import Axes, register_product
from harness.parallel.sharding.axis_rules import out_sharding, out_sharding_like
from harness.parallel.sharding.sequence_parallel import max_over_shards

FORWARD, BACKWARD = jnp.float8_e4m3fn, jnp.float8_e5m2
"""Dtypes of factors of the forward pass, and of gradients."""


def quantise(x: Array, dtype: jnp.dtype) -> tuple[Array, Array]:
    """Return x / scale in an 8-bit dtype, and the float32 scale: |x|'s maximum over that of the dtype. Values
    that are not finite give NaN."""
    largest = max_over_shards(jnp.max(jnp.abs(x)).astype(jnp.float32))
    scale = jnp.where(largest == 0, 1.0, largest / float(jnp.finfo(dtype).max))
    return (x.astype(jnp.float32) / scale).astype(dtype), scale


def _fp8_matmul(x_NI: Array, weight_IO: Array, axes_IO: Axes) -> Array:
    """Compute x @ weight in the dtype of x, from a float32 weight whose gradient is float32. Every product
    contracts the last axis, as those of `layers.matmul`."""
    return _forward(x_NI, weight_IO, axes_IO)[0]


fp8_matmul = jax.custom_vjp(_fp8_matmul, nondiff_argnums=(2,))


def _forward(x_NI: Array, weight_IO: Array, axes_IO: Axes):
    (x8_NI, x_scale), (weight8_IO, weight_scale) = quantise(x_NI, FORWARD), quantise(weight_IO, FORWARD)
    factors = x8_NI.astype(x_NI.dtype), weight8_IO.astype(x_NI.dtype)
    layout_NO = out_sharding_like(x_NI, axes_IO[1])
    y_NO = jnp.dot(*factors, preferred_element_type=jnp.float32, out_sharding=layout_NO)
    return (y_NO * (x_scale * weight_scale)).astype(x_NI.dtype), (x8_NI, x_scale, weight8_IO, weight_scale)


def _backward(axes_IO: Axes, residuals: tuple[Array, ...], dy_NO: Array):
    x8_NI, x_scale, weight8_IO, weight_scale = residuals
    dtype = dy_NO.dtype
    dy8_NO, dy_scale = quantise(dy_NO, BACKWARD)
    dy8_NO = dy8_NO.astype(dtype)
    layout_NI = out_sharding_like(x8_NI, axes_IO[0])
    transposed_OI = weight8_IO.T.astype(dtype)
    dx_NI = jnp.dot(dy8_NO, transposed_OI, preferred_element_type=jnp.float32, out_sharding=layout_NI)
    x8_IN = jax.lax.optimization_barrier(x8_NI.T).astype(dtype)
    layout_IO = out_sharding(*axes_IO)
    dweight_IO = jnp.dot(x8_IN, dy8_NO, preferred_element_type=jnp.float32, out_sharding=layout_IO)
    dx_NI = (dx_NI * (dy_scale * weight_scale)).astype(dtype)
    return dx_NI, jax.lax.optimization_barrier(dweight_IO * (x_scale * dy_scale))


fp8_matmul.defvjp(_forward, _backward)
register_product("fp8", eight_bit=True)(fp8_matmul)
