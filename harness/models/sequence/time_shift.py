"""A shift along a sequence that stays within its document, and the short convolution that is made of it."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jax import Array

from harness.models.layers import gather_weight
from harness.models.parameters import zeros


def shift_time(x_BT: Array, by: int, document_BT: Array | None) -> Array:
    """Return x [B, T, ...] of `by` tokens earlier: y_t = x_(t - by). It is zero where the sequence has no
    such token, or where that token belongs to another document."""
    if by == 0:
        return x_BT
    T = x_BT.shape[1]
    earlier_BT = _pad_front(x_BT, by)[:, :T]
    if document_BT is None:
        return earlier_BT
    is_same_BT = document_BT == _pad_front(document_BT, by)[:, :T]
    return jnp.where(jnp.expand_dims(is_same_BT, [*range(2, x_BT.ndim)]), earlier_BT, 0)


def _pad_front(x_BT: Array, by: int) -> Array:
    return jnp.pad(x_BT, ((0, 0), (by, 0), *((0, 0),) * (x_BT.ndim - 2)))


class ShortConvolution(nnx.Module):
    """Causal convolution of each channel over the last `taps` tokens of its document (arXiv:2512.17351):
    y_t = x_t + sum_j w_j x_(t - j), w = 0 at the start, so that it starts as the identity. `shape` and `axes`
    are those of x after batch and time."""

    def __init__(self, shape: tuple[int, ...], axes: tuple[str | None, ...], taps: int = 4):
        self.taps = zeros((taps, *shape), (None, *axes))

    def __call__(self, x_BT: Array, document_BT: Array | None) -> Array:
        """Map [B, T, ...] to [B, T, ...]."""
        taps = gather_weight(self.taps, x_BT.dtype)
        return x_BT + sum(tap * shift_time(x_BT, by, document_BT) for by, tap in enumerate(taps))
