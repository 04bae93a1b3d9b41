"""Routing: the experts of each token, their weights, and the balance of their load."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from harness.parallel.sharding.sequence_parallel import mean_over_shards

TINY = 1e-20
"""Term that keeps the weights finite where every chosen score has underflowed."""


class Routing(NamedTuple):
    """Experts of each token."""

    chosen_BTK: Array
    """Indices of the experts, highest score first."""
    share_BTK: Array
    """Weights of their outputs, float32; a token's weights sum to 1."""
    load_E: Array
    """Fraction of all assignments that each expert received."""
    load_balance_loss: Array
    """Sum over experts of load times mean score, per sequence, divided by its value for an even load: the
    unweighted loss of `balance: auxiliary`. It is 1 for an even load."""


def route(scores_BTE: Array, bias_E: Array | None, top_k: int) -> Routing:
    """Choose the k experts of highest score + bias; their weights are the scores without bias, normalised to
    sum to 1.

    As in DeepSeek-V3 (arXiv:2412.19437, equations 13 to 16), scores are sigmoids, so that an expert's score
    does not fall because another's rose. The bias changes the choice and has no gradient.
    """
    ranked_BTE = jax.lax.stop_gradient(scores_BTE if bias_E is None else scores_BTE + bias_E)
    chosen_BTK = jax.lax.top_k(ranked_BTE, top_k)[1]
    E = scores_BTE.shape[-1]
    # Selected by comparison: a gather's gradient is a scatter, whose order of summation is not fixed.
    is_chosen_BTKE = chosen_BTK[..., None] == jnp.arange(E)
    score_BTK = jnp.sum(jnp.where(is_chosen_BTKE, scores_BTE[:, :, None], 0.0), axis=-1)
    share_BTK = score_BTK / (jnp.sum(score_BTK, axis=-1, keepdims=True) + TINY)
    # Counts are exact in any order, so loads are bitwise equal on every mesh.
    count_BE = mean_over_shards(jnp.sum(is_chosen_BTKE, axis=(1, 2), dtype=jnp.float32))
    B, assignments = len(count_BE), chosen_BTK.shape[1] * top_k
    unevenness = _load_balance_loss(scores_BTE, count_BE / assignments)
    # Divide by a float: on half a million devices the number of assignments overflows int32.
    return Routing(chosen_BTK, share_BTK, jnp.sum(count_BE, axis=0) / float(B * assignments), unevenness)


def _load_balance_loss(scores_BTE: Array, load_BE: Array) -> Array:
    """Return E sum(load x mean score), with scores normalised per token: equations 17 to 20 of the same
    paper, the per-sequence form of Switch's loss (arXiv:2101.03961, equation 4). It is a mean over sequences,
    so it does not depend on micro-batches or devices; a product of two means over the batch would."""
    portion_BTE = scores_BTE / (jnp.sum(scores_BTE, axis=-1, keepdims=True) + TINY)
    return scores_BTE.shape[-1] * jnp.mean(
        jnp.sum(load_BE * mean_over_shards(jnp.mean(portion_BTE, axis=1)), axis=-1)
    )


def update_router_bias(bias_E: Array, load_E: Array, rate: float) -> Array:
    """Return the bias after a step: raised by `rate` where the load was below the mean, lowered where above
    (arXiv:2408.15664, algorithm 1). Leading axes (layers) are separate routers."""
    return bias_E + rate * jnp.sign(1 / load_E.shape[-1] - load_E)
