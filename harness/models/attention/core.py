"""What all attention by softmax over keys shares: projections, norms, positions, masked products.

A variant says how many key-value heads there are and which keys a query sees; most need no more.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, P

from harness.config.errors import UserError
from harness.models.contract import Products, Site
from harness.models.layers import RMSNorm, Rotary, project
from harness.models.parameters import weight
from harness.parallel.rules import layout

BLOCKS, SHORTEST_BLOCK = 4, 64
"""Queries are cut into so many blocks, none shorter than that; a block leaves out the keys after its end."""


class Attention(nnx.Module):
    """Causal grouped-query attention (arXiv:2305.13245) over all keys, or the last `window` of them."""

    def __init__(self, site: Site, kv_heads: int, window: int | None = None):
        D, H, K = site.shape.width, site.shape.heads, site.shape.head_width
        if kv_heads < 1 or H % kv_heads:
            raise UserError(
                f"model.attention.options.kv_heads={kv_heads} does not divide the {H} heads:"
                f" choose one of {', '.join(str(g) for g in range(1, H + 1) if H % g == 0)}."
            )
        self.window = window
        self.query = weight((D, H, K), ("width", "heads", None), fan_in=D)
        shared = "heads" if kv_heads == H else "kv_heads"
        self.key = weight((D, kv_heads, K), ("width", shared, None), fan_in=D)
        self.value = weight((D, kv_heads, K), ("width", shared, None), fan_in=D)
        self.output = weight((H, K, D), ("heads", None, "width"), fan_in=H * K, depth=site.shape.layers)
        norm = (lambda: RMSNorm(K, site.norm_epsilon, None)) if site.qk_norm else (lambda: None)
        self.query_norm, self.key_norm = norm(), norm()

    def __call__(self, x_BTD: Array, rotary: Rotary) -> Array:
        query_BHTK = self._positioned(project(x_BTD, self.query), self.query_norm, rotary)
        key_BGTK = self._positioned(project(x_BTD, self.key), self.key_norm, rotary)
        value_BGTK = project(x_BTD, self.value).swapaxes(1, 2)
        mixed_BHTK = attend(query_BHTK, key_BGTK, value_BGTK, self.window)
        return project(mixed_BHTK.swapaxes(1, 2), self.output)

    def _positioned(self, x_BTHK: Array, norm: RMSNorm | None, rotary: Rotary) -> Array:
        x_BHTK = x_BTHK.swapaxes(1, 2)
        return rotary(norm(x_BHTK) if norm else x_BHTK)


def attend(query_BHTK: Array, key_BGTK: Array, value_BGTK: Array, window: int | None) -> Array:
    """Softmax attention of each query to its own key and those before it, the last `window`; [B, H, T, K]."""
    B, H, T, K = query_BHTK.shape
    G = key_BGTK.shape[1]
    grouped = (B, G, H // G, T, K)
    query_BGRTK = jnp.reshape(query_BHTK, grouped, out_sharding=layout("batch", "kv_heads", None, None, None))
    if window is not None and in_chunks(T, window):
        mixed_BGRTK = _attend_in_chunks(query_BGRTK, key_BGTK, value_BGTK, window)
    else:
        mixed_BGRTK = jnp.concatenate(
            [
                _softmax_product(
                    query_BGRTK[:, :, :, start:stop],
                    key_BGTK[:, :, :stop],
                    value_BGTK[:, :, :stop],
                    visible(jnp.arange(start, stop), jnp.arange(stop), window),
                )
                for start, stop in blocks(T)
            ],
            axis=3,
        )
    return jnp.reshape(mixed_BGRTK, (B, H, T, K), out_sharding=layout("batch", "heads", None, None))


def _attend_in_chunks(query_BGRTK: Array, key_BGTK: Array, value_BGTK: Array, window: int) -> Array:
    """Chunks of `window` queries see themselves and the chunk before: that is all a window reaches."""
    B, G, R, T, K = query_BGRTK.shape
    C = T // window
    split = layout("batch", "kv_heads", None, None, None)
    query_BGRCWK = jnp.reshape(query_BGRTK, (B, G, R, C, window, K), out_sharding=split and P(*split, None))

    def with_previous(x_BGTK: Array) -> Array:
        x_BGCWK = jnp.reshape(x_BGTK, (B, G, C, window, K), out_sharding=split)
        previous = jnp.pad(x_BGCWK[:, :, :-1], ((0, 0), (0, 0), (1, 0), (0, 0), (0, 0)))
        return jnp.concatenate([previous, x_BGCWK], axis=3)

    chunk_C1 = jnp.arange(C)[:, None] * window
    query_at_CW = chunk_C1 + jnp.arange(window)
    key_at_CS = chunk_C1 + jnp.arange(-window, window)
    mask_CWS = jax.vmap(lambda query, key: visible(query, key, window))(query_at_CW, key_at_CS)
    mixed_BGCRWK = _softmax_product(
        query_BGRCWK.swapaxes(2, 3), with_previous(key_BGTK), with_previous(value_BGTK), mask_CWS[:, None]
    )
    return jnp.reshape(mixed_BGCRWK.swapaxes(2, 3), (B, G, R, T, K), out_sharding=split)


def _softmax_product(query_ZRTK: Array, key_ZSK: Array, value_ZSK: Array, mask_TS: Array) -> Array:
    """Softmax over the keys that the mask leaves, times values. Scores and sums in float32.

    The heads of a group are rows of one plain matrix product. The softmax is divided by its sum after the
    product with the values, K columns instead of S: on CPU that halves the time, most of it backward.
    """
    *Z, R, T, K = query_ZRTK.shape
    S = key_ZSK.shape[-2]
    query_ZMK = query_ZRTK.reshape(*Z, R * T, K)
    score_ZMS = jnp.einsum("...mk,...sk->...ms", query_ZMK, key_ZSK, preferred_element_type=jnp.float32)
    scaled_ZRTS = score_ZMS.reshape(*Z, R, T, S) * (1 / math.sqrt(K))
    masked_ZMS = jnp.where(mask_TS, scaled_ZRTS, -jnp.inf).reshape(*Z, R * T, S)
    highest_ZM1 = jax.lax.stop_gradient(jnp.max(masked_ZMS, axis=-1, keepdims=True))
    weight_ZMS = jnp.exp(masked_ZMS - highest_ZM1)
    sum_ZM1 = jnp.sum(weight_ZMS, axis=-1, keepdims=True)
    mixed_ZMK = jnp.einsum("...ms,...sk->...mk", weight_ZMS.astype(value_ZSK.dtype), value_ZSK)
    return (mixed_ZMK / sum_ZM1).astype(value_ZSK.dtype).reshape(*Z, R, T, K)


def visible(query_at_T: Array, key_at_S: Array, window: int | None) -> Array:
    """[T, S]: whether the key at a position may be seen from there. Padding stands before position 0."""
    distance_TS = query_at_T[:, None] - key_at_S
    seen_TS = (distance_TS >= 0) & (key_at_S >= 0)
    return seen_TS if window is None else seen_TS & (distance_TS < window)


def in_chunks(length: int, window: int) -> bool:
    return length % window == 0 and 2 * window < length


def blocks(length: int) -> list[tuple[int, int]]:
    """Start and end of each block of queries."""
    size = max(SHORTEST_BLOCK, -(-length // BLOCKS))
    return [(start, min(start + size, length)) for start in range(0, length, size)]


def model_flops(site: Site, kv_heads: int, window: int | None = None) -> float:
    """Forward FLOPs a token: 2 a weight, and 2 products of H x K with each key that is seen."""
    T = site.sequence_length
    reach = min(window or T, T)
    keys = reach - reach * (reach - 1) / (2 * T)  # position t sees min(t + 1, reach) keys: their exact mean
    return _projections(site, kv_heads) + _mixing(site, keys)


def executed_flops(site: Site, kv_heads: int, window: int | None = None) -> Products:
    """As `attend` multiplies: whole blocks or chunks of keys, masked or not."""
    T = site.sequence_length
    if window is not None and in_chunks(T, window):
        keys = 2.0 * window
    else:
        keys = sum((stop - start) * stop for start, stop in blocks(T)) / T
    return Products(weights=_projections(site, kv_heads), activations=_mixing(site, keys))


def _projections(site: Site, kv_heads: int) -> float:
    shape = site.shape
    return 2.0 * shape.width * shape.head_width * 2 * (shape.heads + kv_heads)


def _mixing(site: Site, keys: float) -> float:
    return 4.0 * site.shape.heads * site.shape.head_width * keys
