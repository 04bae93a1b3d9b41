"""Products in 8 bits with a factor for each row: 448 over the largest value, e5m2 for gradients."""

from functools import partial

import jax.numpy as jnp

from harness.extend import register_product, rounded_product


def rounded(x, axis, dtype):
    """Return x as the 8-bit dtype holds it, with a factor for each slice along the axis that is summed."""
    largest = jnp.max(jnp.abs(x), axis=axis, keepdims=True).astype(jnp.float32)
    scale = jnp.where(largest == 0, 1.0, largest / float(jnp.finfo(dtype).max))
    return ((x / scale).astype(dtype).astype(jnp.float32) * scale).astype(x.dtype)


factor, gradient = (partial(rounded, dtype=dtype) for dtype in (jnp.float8_e4m3fn, jnp.float8_e5m2))
register_product("row_scaled_fp8", eight_bit=True)(rounded_product(factor, gradient))
