"""A softmax over keys that come in turns (online softmax, arXiv:1805.02867), and its gradient, in turns too.

The gradient multiplies the scores again instead of keeping them (arXiv:2205.14135, appendix B.2). Scores,
sums, and gradients of queries are float32. In names of arrays M are the queries of a group's heads, R by T,
and S the keys of a turn.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from harness.models.attention.kernels.softmax import masked_scores, sink_term


class KVBlock(NamedTuple):
    """The keys that queries [B, G, R, T, K] meet at once."""

    key_BGSK: Array
    value_BGSK: Array
    mask: Array
    """[T, S], or [B, 1, 1, T, S]."""
    softcap: float | None


class OnlineState(NamedTuple):
    """Over the keys that came so far."""

    highest_BGM1: Array
    sum_BGM1: Array
    mixed_BGMK: Array


class BackwardInputs(NamedTuple):
    """Queries, and what the gradient has to know of them when all keys have come."""

    query_BGRTK: Array
    total_BGRT1: Array
    """A key's share of a query is exp(score - total)."""
    slope_BGRTK: Array
    """The gradient of what was mixed."""
    along_BGRT1: Array
    """That, times what was mixed: a query's scores have it in common, since shares sum to 1."""


def init(query_BGRTK: Array, turn: KVBlock) -> OnlineState:
    """With the first keys, of which each query sees at least one."""
    score_BGMS = masked_scores(query_BGRTK, turn.key_BGSK, turn.mask, turn.softcap)
    return _block_state(score_BGMS, jnp.max(score_BGMS, axis=-1, keepdims=True), turn)


def update(sums: OnlineState, query_BGRTK: Array, turn: KVBlock) -> OnlineState:
    """With more keys: what was there is scaled to the highest score of all."""
    score_BGMS = masked_scores(query_BGRTK, turn.key_BGSK, turn.mask, turn.softcap)
    highest_BGM1 = jnp.maximum(sums.highest_BGM1, jnp.max(score_BGMS, axis=-1, keepdims=True))
    before_BGM1 = jnp.exp(sums.highest_BGM1 - highest_BGM1)
    _, sum_BGM1, mixed_BGMK = _block_state(score_BGMS, highest_BGM1, turn)
    return OnlineState(
        highest_BGM1,
        sums.sum_BGM1 * before_BGM1 + sum_BGM1,
        sums.mixed_BGMK * before_BGM1 + mixed_BGMK,
    )


def _block_state(score_BGMS: Array, highest_BGM1: Array, turn: KVBlock) -> OnlineState:
    weight_BGMS = jnp.exp(score_BGMS - highest_BGM1)
    mixed_BGMK = jnp.einsum(
        "bgms,bgsk->bgmk",
        weight_BGMS.astype(turn.value_BGSK.dtype),
        turn.value_BGSK,
        preferred_element_type=jnp.float32,
    )
    return OnlineState(highest_BGM1, jnp.sum(weight_BGMS, axis=-1, keepdims=True), mixed_BGMK)


def finalize(sums: OnlineState, queries: int, sink_GR: Array | None) -> tuple[Array, Array]:
    """What was mixed of so many queries a head, [B, G, R, T, K], and their totals, [B, G, R, T, 1]."""
    sum_BGM1 = sums.sum_BGM1
    if sink_GR is not None:
        sum_BGM1 += sink_term(sink_GR, queries, sums.highest_BGM1)
    both = sums.mixed_BGMK / sum_BGM1, sums.highest_BGM1 + jnp.log(sum_BGM1)
    B, G, M, _ = sum_BGM1.shape
    mixed_BGRTK, total_BGRT1 = (each.reshape(B, G, M // queries, queries, -1) for each in both)
    return mixed_BGRTK, total_BGRT1


def block_gradients(wanted: BackwardInputs, turn: KVBlock) -> tuple[Array, Array, Array]:
    """What a turn adds to the gradient of queries [B, G, R, T, K], its keys and its values [B, G, S, K]."""
    B, G, R, T, _ = wanted.query_BGRTK.shape
    total_BGM1, slope_BGMK, along_BGM1 = (each.reshape(B, G, R * T, -1) for each in wanted[1:])
    score_BGMS, back = jax.vjp(
        lambda query, key: masked_scores(query, key, turn.mask, turn.softcap),
        wanted.query_BGRTK,
        turn.key_BGSK,
    )
    share_BGMS = jnp.exp(score_BGMS - total_BGM1)
    slope_BGMS = jnp.einsum(
        "bgmk,bgsk->bgms", slope_BGMK, turn.value_BGSK, preferred_element_type=jnp.float32
    )
    query_BGRTK, key_BGSK = back(share_BGMS * (slope_BGMS - along_BGM1))
    value_BGSK = jnp.einsum("bgms,bgmk->bgsk", share_BGMS.astype(slope_BGMK.dtype), slope_BGMK)
    # What splits a single group is lost where heads and queries become one axis.
    value_BGSK = jax.reshard(value_BGSK, jax.typeof(turn.value_BGSK).sharding)
    return query_BGRTK.astype(jnp.float32), key_BGSK, value_BGSK
