"""Softmax over the keys that a query may see, multiplied in blocks, in chunks of a window, or fused.

On an accelerator `jax.nn.dot_product_attention` does it, on a GPU in half precision without writing out the
scores of T x T. It knows neither caps nor sinks: those layers are multiplied in blocks everywhere.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array, P

from harness.parallel.sharding.axis_rules import out_sharding

MAX_BLOCKS, SHORTEST_BLOCK = 4, 64
"""Queries are cut into so many blocks, none shorter than that; a block leaves out the keys after its end."""


def attend(
    query_BHTK: Array,
    key_BGTK: Array,
    value_BGTK: Array,
    window: int | None,
    softcap: float | None = None,
    sink_H: Array | None = None,
    document_BT: Array | None = None,
) -> Array:
    """Softmax attention of each query to its own key and those before it, the last `window`, and those of its
    own document where documents are given; [B, H, T, K].

    Values may have a width of their own, which is then that of the answer.
    """
    chunked = window is not None and uses_chunks(query_BHTK.shape[2], window)
    if on_accelerator() and not chunked and softcap is None and sink_H is None:
        return fused_attention(query_BHTK, key_BGTK, value_BGTK, window, document_BT)
    B, H, T, K = query_BHTK.shape
    G = key_BGTK.shape[1]
    grouped = (B, G, H // G, T, K)
    query_BGRTK = jnp.reshape(
        query_BHTK, grouped, out_sharding=out_sharding("batch", "kv_heads", None, None, None)
    )
    sink_GR = (
        None if sink_H is None else sink_H.reshape(G, H // G, out_sharding=out_sharding("kv_heads", None))
    )
    if window is not None and chunked:
        mixed_BGRTK = _attend_in_chunks(
            query_BGRTK, key_BGTK, value_BGTK, window, softcap, sink_GR, document_BT
        )
    else:
        mixed_BGRTK = jnp.concatenate(
            [
                _softmax_product(
                    query_BGRTK[:, :, :, start:stop],
                    key_BGTK[:, :, :stop],
                    value_BGTK[:, :, :stop],
                    _mask_block(
                        causal_mask(jnp.arange(start, stop), jnp.arange(stop), window), document_BT, start
                    ),
                    softcap,
                    sink_GR,
                )
                for start, stop in query_blocks(T)
            ],
            axis=3,
        )
    return jnp.reshape(mixed_BGRTK, (B, H, T, -1), out_sharding=out_sharding("batch", "heads", None, None))


def on_accelerator() -> bool:
    """Whether programs traced here run on an accelerator."""
    return jax.default_backend() != "cpu"


def fused_attention(
    query_BHTK: Array,
    key_BGTK: Array,
    value_BGTK: Array,
    window: int | None,
    document_BT: Array | None = None,
) -> Array:
    """The same as `attend` in one operation; values narrower than keys are padded for it."""
    K, value_width = query_BHTK.shape[-1], value_BGTK.shape[-1]
    padded_BGTK = jnp.pad(value_BGTK, ((0, 0), (0, 0), (0, 0), (0, K - value_width)))
    mixed_BTHK = jax.nn.dot_product_attention(
        *(x.swapaxes(1, 2) for x in (query_BHTK, key_BGTK, padded_BGTK)),
        mask=None if document_BT is None else _same_document(document_BT, document_BT)[:, None],
        is_causal=True,
        local_window_size=None if window is None else (window - 1, 0),
        # Left to itself JAX writes out the scores on a GPU too; cuDNN takes half precision alone.
        implementation="cudnn" if _use_cudnn(query_BHTK) else None,
    )
    return mixed_BTHK.swapaxes(1, 2)[..., :value_width]


def _use_cudnn(query_BHTK: Array) -> bool:
    half, K = query_BHTK.dtype in (jnp.bfloat16, jnp.float16), query_BHTK.shape[-1]
    return jax.default_backend() == "gpu" and half and K % 8 == 0 and K <= 128


def _attend_in_chunks(
    query_BGRTK: Array,
    key_BGTK: Array,
    value_BGTK: Array,
    window: int,
    softcap: float | None,
    sink_GR: Array | None,
    document_BT: Array | None,
) -> Array:
    """Chunks of `window` queries see themselves and the chunk before: that is all a window reaches."""
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
    mask_CWS = jax.vmap(lambda query, key: causal_mask(query, key, window))(query_at_CW, key_at_CS)
    mask = mask_CWS[:, None]
    if document_BT is not None:
        here_BCW = jnp.reshape(document_BT, (B, C, window), out_sharding=out_sharding("batch", None, None))
        before_BCW = jnp.pad(here_BCW[:, :-1], ((0, 0), (1, 0), (0, 0)))
        own_BCWS = _same_document(here_BCW, jnp.concatenate([before_BCW, here_BCW], axis=-1))
        mask = mask & own_BCWS[:, None, :, None]
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
    """Softmax over the keys that the mask leaves, times values. Scores and sums in float32. Leading axes of
    the mask may be of size 1, or not there.

    The heads of a group are rows of one plain matrix product. The softmax is divided by its sum after the
    product with the values, K columns instead of S: on CPU that halves the time, most of it backward.
    """
    *Z, R, T, _ = query_ZRTK.shape
    masked_ZMS = masked_scores(query_ZRTK, key_ZSK, mask_ZRTS, softcap)
    highest_ZM1 = jax.lax.stop_gradient(jnp.max(masked_ZMS, axis=-1, keepdims=True))
    weight_ZMS = jnp.exp(masked_ZMS - highest_ZM1)
    sum_ZM1 = jnp.sum(weight_ZMS, axis=-1, keepdims=True)
    if sink_ZR is not None:
        sum_ZM1 += sink_term(sink_ZR, T, highest_ZM1)
    mixed_ZMK = jnp.einsum("...ms,...sk->...mk", weight_ZMS.astype(value_ZSK.dtype), value_ZSK)
    return (mixed_ZMK / sum_ZM1).astype(value_ZSK.dtype).reshape(*Z, R, T, -1)


def masked_scores(query_ZRTK: Array, key_ZSK: Array, mask_ZRTS: Array, softcap: float | None) -> Array:
    """[Z, M, S] in float32; -inf where the mask leaves nothing."""
    *Z, R, T, K = query_ZRTK.shape
    S = key_ZSK.shape[-2]
    query_ZMK = query_ZRTK.reshape(*Z, R * T, K)
    score_ZMS = jnp.einsum("...mk,...sk->...ms", query_ZMK, key_ZSK, preferred_element_type=jnp.float32)
    scaled_ZRTS = score_ZMS.reshape(*Z, R, T, S) * (1 / math.sqrt(K))
    if softcap is not None:
        scaled_ZRTS = softcap * jnp.tanh(scaled_ZRTS / softcap)
    return jnp.where(mask_ZRTS, scaled_ZRTS, -jnp.inf).reshape(*Z, R * T, S)


def sink_term(sink_ZR: Array, queries: int, highest_ZM1: Array) -> Array:
    """What the sinks of the heads add to the sum of the softmax, for so many queries each."""
    sink_ZRT = jnp.broadcast_to(sink_ZR[..., None], (*sink_ZR.shape, queries))
    sink_ZM1 = sink_ZRT.reshape(*sink_ZR.shape[:-1], sink_ZR.shape[-1] * queries)[..., None]
    return jnp.exp(sink_ZM1 - highest_ZM1)


def causal_mask(query_at_T: Array, key_at_S: Array, window: int | None) -> Array:
    """[T, S]: whether the key at a position may be seen from there. Padding stands before position 0."""
    distance_TS = query_at_T[:, None] - key_at_S
    seen_TS = (distance_TS >= 0) & (key_at_S >= 0)
    return seen_TS if window is None else seen_TS & (distance_TS < window)


def _mask_block(mask_TS: Array, document_BT: Array | None, start: int) -> Array:
    """The mask of queries from `start` on, [T, S], or [B, 1, 1, T, S] with what their own document leaves."""
    if document_BT is None:
        return mask_TS
    T, S = mask_TS.shape
    return mask_documents(mask_TS, document_BT[:, start : start + T], document_BT[:, :S])


def mask_documents(mask_TS: Array, query_BT: Array, key_BS: Array) -> Array:
    """[B, 1, 1, T, S]: what the mask leaves of a query's own document."""
    return mask_TS & _same_document(query_BT, key_BS)[:, None, None]


def _same_document(query_ZT: Array, key_ZS: Array) -> Array:
    """[Z, T, S]: whether a query's document is the key's."""
    return query_ZT[..., :, None] == key_ZS[..., None, :]


def uses_chunks(length: int, window: int) -> bool:
    return length % window == 0 and 2 * window < length


def query_blocks(length: int) -> list[tuple[int, int]]:
    """Start and end of each block of queries."""
    size = max(SHORTEST_BLOCK, -(-length // MAX_BLOCKS))
    return [(start, min(start + size, length)) for start in range(0, length, size)]


def mean_visible_keys(length: int, window: int | None = None) -> float:
    """Keys that a query sees on average: position t sees min(t + 1, window)."""
    reach = min(window or length, length)
    return reach - reach * (reach - 1) / (2 * length)


def mean_computed_keys(length: int, window: int | None = None) -> float:
    """Keys a query as `attend` multiplies them: whole blocks or chunks, masked or not."""
    if window is not None and uses_chunks(length, window):
        return 2.0 * window
    return sum((stop - start) * stop for start, stop in query_blocks(length)) / length
