"""Products in NVFP4: every 16 values along the sum share an e4m3 factor and are rounded to e2m1."""

import jax.numpy as jnp

from harness.extend import register_product, rounded_product

BLOCK, LARGEST, LARGEST_FACTOR = 16, 6.0, 448.0


def rounded(x, axis):
    """Return x in blocks along an axis, each divided by its factor, rounded and multiplied again."""
    last = jnp.moveaxis(x, axis, -1).astype(jnp.float32)
    padded = jnp.pad(last, ((0, 0), (0, -last.shape[1] % BLOCK)))
    blocks = padded.reshape(len(last), -1, BLOCK)
    whole = jnp.maximum(jnp.max(jnp.abs(last)), 1e-30) / (LARGEST * LARGEST_FACTOR)
    largest = jnp.max(jnp.abs(blocks), axis=-1, keepdims=True)
    factor = (largest / (LARGEST * whole)).astype(jnp.float8_e4m3fn).astype(jnp.float32)
    scale = jnp.where(factor == 0, 1.0, factor) * whole
    values = e2m1(jnp.where(factor == 0, 0.0, blocks / scale)) * scale
    return jnp.moveaxis(values.reshape(padded.shape)[:, : last.shape[1]], -1, axis).astype(x.dtype)


def e2m1(x):
    """Round to 0, .5, 1, 1.5, 2, 3, 4 or 6, with the sign."""
    size = jnp.abs(x)
    step = jnp.where(size < 2, 0.5, jnp.where(size < 4, 1.0, 2.0))
    return jnp.sign(x) * jnp.minimum(jnp.round(size / step) * step, LARGEST)


register_product("nvfp4")(rounded_product(rounded, rounded))
