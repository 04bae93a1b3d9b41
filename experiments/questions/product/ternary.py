"""Weights of -1, 0 and 1 times their mean size, straight through: q(W) = a clip(round(W / a), -1, 1)."""

import jax.numpy as jnp

from harness.extend import register_product, straight_through


def ternary(weight_IO):
    size = jnp.mean(jnp.abs(weight_IO)) + 1e-8
    return size * jnp.clip(jnp.round(weight_IO / size), -1, 1)


register_product("ternary")(straight_through(ternary))
