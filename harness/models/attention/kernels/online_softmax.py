"""Softmax over blocks of keys that arrive one at a time (online softmax, arXiv:1805.02867), and its gradient.

The gradient recomputes the scores instead of saving them (arXiv:2205.14135, appendix B.2). Scores, sums, and
gradients of queries are float32. In array names, M is the queries of a group's heads, R by T, and S the keys
of a block.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from harness.models.attention.kernels.softmax import masked_scores, sink_term
from harness.parallel.sharding.axis_rules import reshape_inner


class KVBlock(NamedTuple):
    """Keys that the queries [B, G, R, T, K] attend to in one step."""

    key_BGSK: Array
    value_BGSK: Array
    mask: Array
    """[T, S] or [B, 1, 1, T, S]; True where the key is visible."""
    softcap: float | None


class OnlineState(NamedTuple):
    """Running softmax statistics over the keys processed so far."""

    highest_BGM1: Array
    sum_BGM1: Array
    mixed_BGMK: Array


class BackwardInputs(NamedTuple):
    """Queries and the statistics over all keys that the gradient needs."""

    query_BGRTK: Array
    total_BGRT1: Array
    """Log of the softmax denominator: a key's attention weight is exp(score - total)."""
    slope_BGRTK: Array
    """Gradient of the attention output."""
    along_BGRT1: Array
    """Inner product of that gradient with the output. It is subtracted from every gradient of a query's
    weights, since weights sum to 1."""


def init(query_BGRTK: Array, block: KVBlock) -> OnlineState:
    """Return the state after the first block, which must contain a visible key for each query."""
    score_BGMS = masked_scores(query_BGRTK, block.key_BGSK, block.mask, block.softcap)
    return _block_state(score_BGMS, jnp.max(score_BGMS, axis=-1, keepdims=True), block)


def update(state: OnlineState, query_BGRTK: Array, block: KVBlock) -> OnlineState:
    """Return the state after another block; earlier sums are rescaled to the new maximum."""
    score_BGMS = masked_scores(query_BGRTK, block.key_BGSK, block.mask, block.softcap)
    highest_BGM1 = jnp.maximum(state.highest_BGM1, jnp.max(score_BGMS, axis=-1, keepdims=True))
    before_BGM1 = jnp.exp(state.highest_BGM1 - highest_BGM1)
    _, sum_BGM1, mixed_BGMK = _block_state(score_BGMS, highest_BGM1, block)
    return OnlineState(
        highest_BGM1, state.sum_BGM1 * before_BGM1 + sum_BGM1, state.mixed_BGMK * before_BGM1 + mixed_BGMK
    )


def _block_state(score_BGMS: Array, highest_BGM1: Array, block: KVBlock) -> OnlineState:
    weight_BGMS, value_BGSK = jnp.exp(score_BGMS - highest_BGM1), block.value_BGSK
    factors = weight_BGMS.astype(value_BGSK.dtype), value_BGSK
    mixed_BGMK = jnp.einsum("bgms,bgsk->bgmk", *factors, preferred_element_type=jnp.float32)
    return OnlineState(highest_BGM1, jnp.sum(weight_BGMS, axis=-1, keepdims=True), mixed_BGMK)


def finalize(state: OnlineState, queries: int, sink_GR: Array | None) -> tuple[Array, Array]:
    """Return the output [B, G, R, T, K] and the log denominators [B, G, R, T, 1]; T is `queries`."""
    sum_BGM1 = state.sum_BGM1
    if sink_GR is not None:
        sum_BGM1 += sink_term(sink_GR, queries, state.highest_BGM1)
    outputs = state.mixed_BGMK / sum_BGM1, state.highest_BGM1 + jnp.log(sum_BGM1)
    R = sum_BGM1.shape[2] // queries
    mixed_BGRTK, total_BGRT1 = (reshape_inner(array, 2, R, queries, array.shape[-1]) for array in outputs)
    return mixed_BGRTK, total_BGRT1


def block_gradients(inputs: BackwardInputs, block: KVBlock) -> tuple[Array, Array, Array]:
    """Return a block's part of the gradients of queries [B, G, R, T, K], keys and values [B, G, S, K]."""
    R, T = inputs.query_BGRTK.shape[2:4]
    flat = (reshape_inner(array, 2, R * T, array.shape[-1]) for array in inputs[1:])
    total_BGM1, slope_BGMK, along_BGM1 = flat
    score_BGMS, scores_vjp = jax.vjp(
        lambda query, key: masked_scores(query, key, block.mask, block.softcap),
        inputs.query_BGRTK,
        block.key_BGSK,
    )
    share_BGMS = jnp.exp(score_BGMS - total_BGM1)
    factors = slope_BGMK, block.value_BGSK
    slope_BGMS = jnp.einsum("bgmk,bgsk->bgms", *factors, preferred_element_type=jnp.float32)
    query_BGRTK, key_BGSK = scores_vjp(share_BGMS * (slope_BGMS - along_BGM1))
    value_BGSK = jnp.einsum("bgms,bgmk->bgsk", share_BGMS.astype(slope_BGMK.dtype), slope_BGMK)
    return query_BGRTK.astype(jnp.float32), key_BGSK, value_BGSK
