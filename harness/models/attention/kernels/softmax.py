"""Softmax attention over visible keys, written out: in blocks of queries, or in chunks of a window.

It is the reference of the fused kernels (`choice`), and the form that runs on every platform.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array, P

from harness.models.products.matrix_unit import multiply, multiply_transposed
from harness.parallel.sharding.axis_rules import out_sharding, reshape, reshape_inner

MAX_BLOCKS, SHORTEST_BLOCK = 4, 128
"""Largest number of query blocks, and smallest block size in tokens. A block skips keys after its end, but
each has some 30 kernels to compile: below 128 tokens that takes longer than a run of a small model saves."""


def attend(
    query_BHTK: Array,
    key_BGTK: Array,
    value_BGTK: Array,
    window: int | None,
    softcap: float | None = None,
    sink_H: Array | None = None,
    document_BT: Array | None = None,
) -> Array:
    """Return softmax attention [B, H, T, K] of each query to its own key and those before it: the last
    `window` if given, and those of its own document if documents are given.

    Values may have another width than keys; the output has the values' width.
    """
    B, H, T, _ = query_BHTK.shape
    query_BGRTK, sink_GR = group_heads(query_BHTK, key_BGTK.shape[1], sink_H)
    if window is not None and uses_chunks(T, window):
        mixed_BGRTK = _attend_in_chunks(
            query_BGRTK, key_BGTK, value_BGTK, window, softcap, sink_GR, document_BT
        )
    else:
        blocks = []
        for start, stop in query_blocks(T):
            query, keys = query_BGRTK[:, :, :, start:stop], (key_BGTK[:, :, :stop], value_BGTK[:, :, :stop])
            mask = causal_mask(jnp.arange(start, stop), jnp.arange(stop), window)
            if document_BT is not None:
                mask = mask_documents(mask, document_BT[:, start:stop], document_BT[:, :stop])
            blocks.append(_softmax_product(query, *keys, mask, softcap, sink_GR))
        mixed_BGRTK = jnp.concatenate(blocks, axis=3)
    return reshape(mixed_BGRTK, (B, H, T, -1), "batch", "heads", None, None)


def group_heads(query_BHTK: Array, G: int, sink_H: Array | None) -> tuple[Array, Array | None]:
    """Split query heads and sinks by their key-value head: [B, G, R, T, K] and [G, R]."""
    B, H, T, K = query_BHTK.shape
    split = out_sharding("batch", "kv_heads", None, None, None)
    query_BGRTK = jnp.reshape(query_BHTK, (B, G, H // G, T, K), out_sharding=split)
    if sink_H is None:
        return query_BGRTK, None
    return query_BGRTK, sink_H.reshape(G, H // G, out_sharding=out_sharding("kv_heads", None))


def _attend_in_chunks(
    query_BGRTK: Array,
    key_BGTK: Array,
    value_BGTK: Array,
    window: int,
    softcap: float | None,
    sink_GR: Array | None,
    document_BT: Array | None,
) -> Array:
    """Compute `attend` in chunks of `window` queries: the window reaches as far as the previous chunk."""
    B, G, R, T, K = query_BGRTK.shape
    C = T // window
    split = out_sharding("batch", "kv_heads", None, None, None)
    query_BGRCWK = jnp.reshape(query_BGRTK, (B, G, R, C, window, K), out_sharding=split and P(*split, None))

    def with_previous(x_BGTK: Array) -> Array:
        x_BGCWK = jnp.reshape(x_BGTK, (B, G, C, window, -1), out_sharding=split)
        previous = jnp.pad(x_BGCWK[:, :, :-1], ((0, 0), (0, 0), (1, 0), (0, 0), (0, 0)))
        return jnp.concatenate([previous, x_BGCWK], axis=3)

    chunk_C1 = jnp.arange(C)[:, None] * window
    query_at_CW = chunk_C1 + jnp.arange(window)
    key_at_CS = chunk_C1 + jnp.arange(-window, window)
    mask = jax.vmap(lambda query, key: causal_mask(query, key, window))(query_at_CW, key_at_CS)[:, None]
    if document_BT is not None:
        document_BCW = reshape(document_BT, (B, C, window), "batch", None, None)
        previous_BCW = jnp.pad(document_BCW[:, :-1], ((0, 0), (1, 0), (0, 0)))
        key_BCS = jnp.concatenate([previous_BCW, document_BCW], axis=-1)
        mask = mask & _same_document(document_BCW, key_BCS)[:, None, :, None]
    mixed_BGCRWK = _softmax_product(
        query_BGRCWK.swapaxes(2, 3),
        with_previous(key_BGTK),
        with_previous(value_BGTK),
        mask,
        softcap,
        None if sink_GR is None else sink_GR[:, None],
    )
    return jnp.reshape(mixed_BGCRWK.swapaxes(2, 3), (B, G, R, T, -1), out_sharding=split)


def _softmax_product(
    query_ZRTK: Array,
    key_ZSK: Array,
    value_ZSK: Array,
    mask_ZRTS: Array,
    softcap: float | None,
    sink_ZR: Array | None,
) -> Array:
    """Compute the softmax over the keys that the mask leaves, times values. Scores and sums are float32.
    Leading axes of the mask may have size 1 or be missing.

    The heads of a group are rows of one plain matrix product. The division by the softmax sum follows the
    product with the values, over K columns instead of S: on CPU that halves the time, most of it backward.
    """
    *Z, R, T, _ = query_ZRTK.shape
    masked_ZMS = masked_scores(query_ZRTK, key_ZSK, mask_ZRTS, softcap)
    highest_ZM1 = jax.lax.stop_gradient(jnp.max(masked_ZMS, axis=-1, keepdims=True))
    weight_ZMS = jnp.exp(masked_ZMS - highest_ZM1)
    sum_ZM1 = jnp.sum(weight_ZMS, axis=-1, keepdims=True)
    if sink_ZR is not None:
        sum_ZM1 += sink_term(sink_ZR, T, highest_ZM1)
    mixed_ZMK = multiply(weight_ZMS, value_ZSK)
    return reshape_inner((mixed_ZMK / sum_ZM1).astype(value_ZSK.dtype), len(Z), R, T, mixed_ZMK.shape[-1])


def masked_scores(query_ZRTK: Array, key_ZSK: Array, mask_ZRTS: Array, softcap: float | None) -> Array:
    """Return the float32 scores [Z, M, S], -inf where masked."""
    *Z, R, T, K = query_ZRTK.shape
    S = key_ZSK.shape[-2]
    query_ZMK = reshape_inner(query_ZRTK, len(Z), R * T, K)
    score_ZMS = multiply_transposed(query_ZMK, key_ZSK)
    scaled_ZRTS = reshape_inner(score_ZMS, len(Z), R, T, S) * (1 / math.sqrt(K))
    if softcap is not None:
        scaled_ZRTS = softcap * jnp.tanh(scaled_ZRTS / softcap)
    return reshape_inner(jnp.where(mask_ZRTS, scaled_ZRTS, -jnp.inf), len(Z), R * T, S)


def sink_term(sink_ZR: Array, queries: int, highest_ZM1: Array) -> Array:
    """Return the sinks' contribution to the softmax sum, for `queries` queries per head."""
    sink_ZRT = jnp.broadcast_to(sink_ZR[..., None], (*sink_ZR.shape, queries))
    sink_ZM1 = reshape_inner(sink_ZRT, sink_ZR.ndim - 1, sink_ZR.shape[-1] * queries, 1)
    return jnp.exp(sink_ZM1 - highest_ZM1)


def causal_mask(query_at_T: Array, key_at_S: Array, window: int | None) -> Array:
    """Return [T, S]: whether a query sees a key, by their positions. Negative key positions are padding."""
    distance_TS = query_at_T[:, None] - key_at_S
    mask_TS = (distance_TS >= 0) & (key_at_S >= 0)
    return mask_TS if window is None else mask_TS & (distance_TS < window)


def mask_documents(mask_TS: Array, query_BT: Array, key_BS: Array) -> Array:
    """Return [B, 1, 1, T, S]: the mask, limited to keys of the query's own document."""
    return mask_TS & _same_document(query_BT, key_BS)[:, None, None]


def _same_document(query_ZT: Array, key_ZS: Array) -> Array:
    """Return [Z, T, S]: whether query and key belong to the same document."""
    return query_ZT[..., :, None] == key_ZS[..., None, :]


def uses_chunks(length: int, window: int) -> bool:
    """Return whether attention with this window is computed in chunks."""
    return length % window == 0 and 2 * window < length


def query_blocks(length: int) -> list[tuple[int, int]]:
    """Return the start and end of each block of queries."""
    size = max(SHORTEST_BLOCK, -(-length // MAX_BLOCKS))
    return [(start, min(start + size, length)) for start in range(0, length, size)]


def mean_visible_keys(length: int, window: int | None = None) -> float:
    """Return the mean number of keys that a query sees: position t sees min(t + 1, window)."""
    reach = min(window or length, length)
    return reach - reach * (reach - 1) / (2 * length)


def mean_computed_keys(length: int, window: int | None = None) -> float:
    """Return the mean number of keys per query that `attend` computes, masked ones of its blocks included."""
    if window is not None and uses_chunks(length, window):
        return 2.0 * window
    return sum((stop - start) * stop for start, stop in query_blocks(length)) / length
