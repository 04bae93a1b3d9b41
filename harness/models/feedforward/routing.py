"""Which experts a token goes to, with what share, and how evenly they are used."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from harness.parallel.sharding.sequence_parallel import mean_over_shards

TINY = 1e-20
"""Keeps the shares finite where every chosen score has underflowed."""


class Routing(NamedTuple):
    """Where each token goes."""

    chosen_BTK: Array
    """Experts, the highest score first."""
    share_BTK: Array
    """How much of the answer each gives, float32; a token's sum is 1."""
    load_E: Array
    """Share of all assignments that each expert got."""
    load_balance_loss: Array
    """Sum over experts of their load times their mean score, a sequence, over what an even load gives:
    the loss of `balance: auxiliary` before its weight. 1 where all are used alike."""


def route(scores_BTE: Array, bias_E: Array | None, top_k: int) -> Routing:
    """The k experts of highest score + bias; their shares are the scores alone, over their sum.

    As DeepSeek-V3 (arXiv:2412.19437, equations 13 to 16): scores are sigmoids, so that an expert's does
    not fall because another's rose, and the bias decides who is chosen without a gradient of its own.
    """
    ranked_BTE = jax.lax.stop_gradient(scores_BTE if bias_E is None else scores_BTE + bias_E)
    chosen_BTK = jax.lax.top_k(ranked_BTE, top_k)[1]
    E = scores_BTE.shape[-1]
    # Picked by comparison: a gather's gradient is a scatter, whose order of sums is not ours.
    is_chosen_BTKE = chosen_BTK[..., None] == jnp.arange(E)
    score_BTK = jnp.sum(jnp.where(is_chosen_BTKE, scores_BTE[:, :, None], 0.0), axis=-1)
    share_BTK = score_BTK / (jnp.sum(score_BTK, axis=-1, keepdims=True) + TINY)
    # Counts are exact in any order, so that loads are bitwise the same on every mesh.
    count_BE = mean_over_shards(jnp.sum(is_chosen_BTKE, axis=(1, 2), dtype=jnp.float32))
    B, each = len(count_BE), chosen_BTK.shape[1] * top_k
    unevenness = _load_balance_loss(scores_BTE, count_BE / each)
    # Half a million devices choose more often than an int32 counts.
    return Routing(chosen_BTK, share_BTK, jnp.sum(count_BE, axis=0) / float(B * each), unevenness)


def _load_balance_loss(scores_BTE: Array, load_BE: Array) -> Array:
    """E sum(load x mean score), scores over their sum: equations 17 to 20 there, the loss of Switch
    (arXiv:2101.03961, equation 4) a sequence. So it is a mean over sequences, the same however a batch is
    cut into micro-batches and over devices; a product of two means over the batch is not."""
    portion_BTE = scores_BTE / (jnp.sum(scores_BTE, axis=-1, keepdims=True) + TINY)
    return scores_BTE.shape[-1] * jnp.mean(
        jnp.sum(load_BE * mean_over_shards(jnp.mean(portion_BTE, axis=1)), axis=-1)
    )


def update_router_bias(bias_E: Array, load_E: Array, rate: float) -> Array:
    """The bias after a step: up by `rate` where the load was below the mean, down where above
    (arXiv:2408.15664, algorithm 1). Leading axes (layers) are each a router of its own."""
    return bias_E + rate * jnp.sign(1 / load_E.shape[-1] - load_E)
