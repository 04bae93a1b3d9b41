"""Attention by blocks of keys: the mean of each block, and a choice of blocks as a mask of keys."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from harness.models.layers import Rotary


def block_means(x_BGTK: Array, size: int) -> Array:
    """Return the mean of each block of `size` tokens, [B, G, N, K]; the last one counts missing tokens as
    zeros."""
    return jnp.mean(_in_blocks(x_BGTK, 2, size), axis=3)


def own_block(length: int, size: int) -> Array:
    """Return [T, N]: whether a block is the one that holds the token."""
    return jnp.arange(length)[:, None] // size == jnp.arange(-(-length // size))


def earlier_blocks(rotary: Rotary, size: int) -> Array:
    """Return [B or 1, 1, T, N]: whether all of a block lies before the block that holds the token, and in the
    token's document if documents are masked."""
    T = len(rotary.cos_TJ)
    before_TN = jnp.arange(T)[:, None] // size > jnp.arange(-(-T // size))
    if rotary.document_BT is None:
        return before_TN[None, None]
    first_BN = _in_blocks(rotary.document_BT, 1, size)[:, :, 0]
    # Documents are numbered in order: a block that starts in the document and lies before the token is in it.
    return (before_TN & (first_BN[:, None] == rotary.document_BT[:, :, None]))[:, None]


def spread_blocks(chosen_BHTN: Array, size: int, length: int) -> Array:
    """Return [B, H, T, S]: the choice of blocks as a choice of their keys."""
    return jnp.repeat(chosen_BHTN, size, axis=-1)[..., :length]


def _in_blocks(x: Array, axis: int, size: int) -> Array:
    """Return x with an axis split into blocks of `size`, padded with zeros."""
    length = x.shape[axis]
    padding = [(0, 0)] * x.ndim
    padding[axis] = (0, -length % size)
    return jnp.pad(x, padding).reshape(*x.shape[:axis], -1, size, *x.shape[axis + 1 :])
