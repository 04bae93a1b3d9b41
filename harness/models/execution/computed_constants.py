"""Arrays that programs hold as constants, and that follow from code and config alone.

A program with such an array comes out the same in every process. One with another large array may hold what
was read from somewhere, such as weights.
"""

from __future__ import annotations

import hashlib

import jax.numpy as jnp
import numpy as np
from jax import Array

_hashes: set[bytes] = set()


def computed_constant(values: np.ndarray, dtype: jnp.dtype) -> Array:
    """Return an array of these values, which the caller has computed from numbers of the config alone."""
    constant = np.asarray(values, dtype)
    _hashes.add(hashlib.sha256(constant.tobytes()).digest())
    return jnp.asarray(constant)


def is_computed(content: bytes) -> bool:
    """Return whether these are the bytes of an array that this process has made with `computed_constant`."""
    return hashlib.sha256(content).digest() in _hashes
