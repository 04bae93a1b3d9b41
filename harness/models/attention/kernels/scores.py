"""Attention written out in steps, for variants that change the scores or the weights between them.

`softmax.attend` is the same in one function, in blocks that skip later keys: a variant that changes neither
scores nor weights uses that.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array

from harness.models.attention.kernels.softmax import causal_mask, mask_documents
from harness.models.layers import Rotary
from harness.models.products.matrix_unit import multiply, multiply_transposed
from harness.parallel.sharding.axis_rules import out_sharding, reshape


def visible_keys(rotary: Rotary, window: int | None = None) -> Array:
    """Return [B or 1, 1, T, S]: whether a query sees a key, which is its own or one before it: within
    `window` if given, and of the same document if documents are masked."""
    position_T = jnp.arange(len(rotary.cos_TJ))
    mask_TS = causal_mask(position_T, position_T, window)
    if rotary.document_BT is None:
        return mask_TS[None, None]
    return mask_documents(mask_TS, rotary.document_BT, rotary.document_BT)[:, 0]


def attention_scores(query_BHTK: Array, key_BGSK: Array) -> Array:
    """Return the float32 scores [B, H, T, S]: each query times each key of its group, over sqrt(K)."""
    B, H, T, K = query_BHTK.shape
    query_BGMK = _by_group(query_BHTK, key_BGSK.shape[1])
    score_BGMS = multiply_transposed(query_BGMK, key_BGSK)
    return reshape(score_BGMS, (B, H, T, -1), "batch", "heads", None, None) * (1 / math.sqrt(K))


def softmax_weights(
    score_BHTS: Array, visible_BHTS: Array, softcap: float | None = None, sink_H: Array | None = None
) -> Array:
    """Return the softmax over the visible keys, in float32; zero for a query that sees none. `softcap` and
    sinks as in `softmax.attend`."""
    if softcap is not None:
        score_BHTS = softcap * jnp.tanh(score_BHTS / softcap)
    masked_BHTS = jnp.where(visible_BHTS, score_BHTS, -jnp.inf)
    lowest = jnp.finfo(jnp.float32).min  # of a query that sees no key
    highest_BHT1 = jax.lax.stop_gradient(jnp.max(masked_BHTS, axis=-1, keepdims=True, initial=lowest))
    weight_BHTS = jnp.where(visible_BHTS, jnp.exp(masked_BHTS - highest_BHT1), 0.0)
    sum_BHT1 = jnp.sum(weight_BHTS, axis=-1, keepdims=True)
    if sink_H is not None:
        sum_BHT1 = sum_BHT1 + jnp.exp(sink_H[:, None, None] - highest_BHT1)
    return weight_BHTS / jnp.maximum(sum_BHT1, 1e-30)


def weighted_values(weight_BHTS: Array, value_BGSK: Array) -> Array:
    """Return the sum of the values of each head's group by its weights, [B, H, T, K]."""
    B, H, T, _ = weight_BHTS.shape
    weight_BGMS = _by_group(weight_BHTS.astype(value_BGSK.dtype), value_BGSK.shape[1])
    mixed_BGMK = multiply(weight_BGMS, value_BGSK).astype(value_BGSK.dtype)
    return reshape(mixed_BGMK, (B, H, T, -1), "batch", "heads", None, None)


def _by_group(x_BHTK: Array, G: int) -> Array:
    """Return [B, G, R T, K]: the heads of a group as rows of one matrix."""
    B, H, T, K = x_BHTK.shape
    split = out_sharding("batch", "kv_heads", None, None)
    return jnp.reshape(x_BHTK, (B, G, H // G * T, K), out_sharding=split)


def best_keys(score_BHTS: Array, visible_BHTS: Array, count: int) -> Array:
    """Return [B, H, T, S]: which of the visible keys have the `count` highest scores, without a gradient.
    Keys that are equal to the last of them are kept too."""
    masked_BHTS = jax.lax.stop_gradient(jnp.where(visible_BHTS, score_BHTS, -jnp.inf))
    highest_BHTN = jax.lax.top_k(masked_BHTS, min(count, masked_BHTS.shape[-1]))[0]
    return visible_BHTS & (masked_BHTS >= highest_BHTN[..., -1:])
