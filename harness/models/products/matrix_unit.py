"""Products of bfloat16 factors in the one form that XLA's CPU library computes on the matrix unit of a CPU.

The first factor is summed over its last axis, both are stored row by row, and the result is float32. Factors
of every other product are widened to float32 first. Gradients are products too, so the functions here have
gradient rules that keep to the form; float32 factors, and other devices, need none of it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array


def result_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """Return the dtype in which a product of this dtype is computed, before it is rounded: float32 on CPU.
    Other devices round in the product itself, and send sums over devices in `dtype`."""
    return jnp.dtype(jnp.float32) if is_for_cpu() else jnp.dtype(dtype)


def stored_by_rows(x: Array) -> Array:
    """Return x stored with its last axis innermost. XLA stores a transposed matrix in the order of its
    source and folds the transpose into the product; a new first axis behind a barrier prevents both."""
    return jax.lax.optimization_barrier(x[None])[0]


def transpose(x_ZMN: Array) -> Array:
    """Return x with its last two axes exchanged, stored by rows. Values of bfloat16 move as integers: XLA's
    CPU code for their transpose widens and rounds them one by one, at 24 times the cost."""
    if x_ZMN.dtype != jnp.bfloat16:
        return stored_by_rows(x_ZMN.swapaxes(-1, -2))
    bits_ZMN = jax.lax.bitcast_convert_type(x_ZMN, jnp.uint16)
    return jax.lax.bitcast_convert_type(stored_by_rows(bits_ZMN.swapaxes(-1, -2)), jnp.bfloat16)


def multiply(x_ZMK: Array, y_ZKN: Array) -> Array:
    """Return x @ y in float32 [..., M, N], with x rounded to the dtype of y."""
    if _needs_form(y_ZKN):
        return _multiply(x_ZMK, y_ZKN)
    return _einsum("...mk,...kn->...mn", x_ZMK.astype(y_ZKN.dtype), y_ZKN)


def multiply_transposed(x_ZMK: Array, y_ZNK: Array) -> Array:
    """Return x times the transpose of y in float32 [..., M, N], with x rounded to the dtype of y."""
    if _needs_form(y_ZNK):
        return _multiply_transposed(x_ZMK, y_ZNK)
    return _einsum("...mk,...nk->...mn", x_ZMK.astype(y_ZNK.dtype), y_ZNK)


def is_for_cpu() -> bool:
    """Return whether the program that is traced will run on CPU, by the mesh in context if it has devices."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return getattr(device, "platform", jax.default_backend()) == "cpu"


def _needs_form(factor: Array) -> bool:
    return factor.dtype == jnp.bfloat16 and is_for_cpu()


def _einsum(axes: str, x: Array, y: Array) -> Array:
    return jnp.einsum(axes, x, y, preferred_element_type=jnp.float32)


@jax.custom_vjp
def _multiply(x_ZMK: Array, y_ZKN: Array) -> Array:
    return _multiply_forward(x_ZMK, y_ZKN)[0]


def _multiply_forward(x_ZMK: Array, y_ZKN: Array):
    rounded_ZMK, y_ZKN = x_ZMK.astype(y_ZKN.dtype), stored_by_rows(y_ZKN)
    like_x = jnp.zeros((), x_ZMK.dtype)
    return _einsum("...mk,...kn->...mn", rounded_ZMK, y_ZKN), (rounded_ZMK, y_ZKN, like_x)


def _multiply_backward(residuals: tuple[Array, Array, Array], slope_ZMN: Array) -> tuple[Array, Array]:
    x_ZMK, y_ZKN, like_x = residuals
    slope_ZMN = slope_ZMN.astype(y_ZKN.dtype)
    dx_ZMK = _einsum("...mn,...kn->...mk", slope_ZMN, y_ZKN)
    dy_ZNK = _einsum("...nm,...mk->...nk", transpose(slope_ZMN), x_ZMK)
    return dx_ZMK.astype(like_x.dtype), transpose(dy_ZNK.astype(y_ZKN.dtype))


_multiply.defvjp(_multiply_forward, _multiply_backward)


@jax.custom_vjp
def _multiply_transposed(x_ZMK: Array, y_ZNK: Array) -> Array:
    return _multiply_transposed_forward(x_ZMK, y_ZNK)[0]


def _multiply_transposed_forward(x_ZMK: Array, y_ZNK: Array):
    rounded_ZMK, y_ZNK = stored_by_rows(x_ZMK.astype(y_ZNK.dtype)), stored_by_rows(y_ZNK)
    like_x = jnp.zeros((), x_ZMK.dtype)
    return _einsum("...mk,...nk->...mn", rounded_ZMK, y_ZNK), (rounded_ZMK, y_ZNK, like_x)


def _multiply_transposed_backward(residuals: tuple[Array, Array, Array], slope_ZMN: Array):
    x_ZMK, y_ZNK, like_x = residuals
    slope_ZMN = slope_ZMN.astype(y_ZNK.dtype)
    dx_ZMK = _einsum("...mn,...nk->...mk", slope_ZMN, y_ZNK)
    dy_ZKN = _einsum("...km,...mn->...kn", transpose(x_ZMK), slope_ZMN)
    return dx_ZMK.astype(like_x.dtype), transpose(dy_ZKN.astype(y_ZNK.dtype))


_multiply_transposed.defvjp(_multiply_transposed_forward, _multiply_transposed_backward)
