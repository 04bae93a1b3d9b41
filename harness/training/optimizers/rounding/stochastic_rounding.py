"""Stochastic rounding to bfloat16: up or down at random, so that the mean of many roundings is exact.

Rounding to the nearest value drops every update below half a unit in the last place, 1/512 of a weight, and
so most updates of a long run (arXiv:2010.06192). The random bits are a hash of seed, step, path and position,
not JAX's generator: XLA computes the hash in the loop that updates a parameter, while the generator's bits
would lie in memory, 8 bytes and more a parameter. So they need none, and they are the same on every mesh.
"""

from __future__ import annotations

import functools
import hashlib
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, UInt32

DROPPED_BITS = 16
"""Bits of a float32 mantissa that bfloat16 has not."""


class NoiseKey(NamedTuple):
    """Two words that seed the random bits of a step."""

    low: UInt32[Array, ""]
    high: UInt32[Array, ""]


def noise_key(seed: UInt32[Array, ""], step: Array) -> NoiseKey:
    """Return the key of the roundings after `step` updates of the run with this seed."""
    low = _mix(_mix(seed) ^ step.astype(jnp.uint32))
    return NoiseKey(low, _mix(low ^ seed))


def round_to_bfloat16(x: Float[Array, "*shape"], key: NoiseKey, path: str) -> Float[Array, "*shape"]:
    """Round float32 to one of the two nearest bfloat16 values, the nearer one with the higher probability.
    Values that bfloat16 has stay, and what is not finite. Each array of a step needs a path of its own."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    noise = _random_words(x, key, path) >> DROPPED_BITS
    upper_bits = ((bits + noise) >> DROPPED_BITS).astype(jnp.uint16)
    neighbour = jax.lax.bitcast_convert_type(upper_bits, jnp.bfloat16)
    return jnp.where(jnp.isfinite(x), neighbour, x.astype(jnp.bfloat16))


def _random_words(x: Array, key: NoiseKey, path: str) -> UInt32[Array, "*shape"]:
    """Return a random word for each value of x, split over devices as x is."""
    words = np.frombuffer(hashlib.sha256(path.encode()).digest()[:8], np.uint32)
    # A word counts 4 billion values, and an array may have more: leading axes are counted in the second one.
    lead, matrix = tuple(range(x.ndim - 2)), tuple(range(max(0, x.ndim - 2), x.ndim))
    first = _mix(_position(x, matrix) ^ key.low ^ words[0])
    return _mix(first ^ _mix(_position(x, lead) ^ key.high ^ words[1]))


def _position(x: Array, axes: tuple[int, ...]) -> UInt32[Array, "*shape"]:
    """Return the index of each value over some axes, in row-major order, broadcastable to x."""
    spec = None if jax.sharding.get_abstract_mesh().empty else jax.typeof(x).sharding.spec
    index = functools.partial(jax.lax.broadcasted_iota, jnp.uint32, x.shape, out_sharding=spec)
    strides = {axis: math.prod(x.shape[inner] for inner in axes if inner > axis) for axis in axes}
    return sum((index(axis) * np.uint32(stride) for axis, stride in strides.items()), jnp.uint32(0))


def _mix(word: Array) -> Array:
    """Return a hash of each word, a bijection (lowbias32 of nullprogram.com/blog/2018/07/31)."""
    word = (word ^ (word >> 16)) * np.uint32(0x7FEB352D)
    word = (word ^ (word >> 15)) * np.uint32(0x846CA68B)
    return word ^ (word >> 16)
