"""Products in MXFP8: every 32 values along the sum share a power of 2 and are rounded to e4m3."""

import jax.numpy as jnp

from harness.extend import register_product, rounded_product

BLOCK, LARGEST = 32, 448.0


def rounded(x, axis):
    """Return x in blocks along an axis, each divided by its power of 2, rounded and multiplied again."""
    last = jnp.moveaxis(x, axis, -1).astype(jnp.float32)
    padded = jnp.pad(last, ((0, 0), (0, -last.shape[1] % BLOCK)))
    blocks = padded.reshape(len(last), -1, BLOCK)
    largest = jnp.max(jnp.abs(blocks), axis=-1, keepdims=True)
    _, exponent = jnp.frexp(jnp.maximum(largest, 1e-30))
    scale = jnp.ldexp(jnp.ones_like(largest), exponent - 9)  # the largest value then lies between 256 and 512
    values = jnp.clip(blocks / scale, -LARGEST, LARGEST).astype(jnp.float8_e4m3fn).astype(jnp.float32) * scale
    return jnp.moveaxis(values.reshape(padded.shape)[:, : last.shape[1]], -1, axis).astype(x.dtype)


register_product("mxfp8", eight_bit=True)(rounded_product(rounded, rounded))
