"""Sparse attention with an indexer (DeepSeek Sparse Attention, arXiv:2512.02556): a small attention, the
indexer, scores all keys, and a query of the main attention sees only those with the highest scores.

The choice has no gradient. The indexer learns to predict the main attention: its loss is the divergence of
its softmax over the chosen keys from the weights of the main attention, summed over heads. It reads the
layer's input and passes no gradient back. In array names, J is the width of its heads, N their number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from harness.core.errors import UserError
from harness.models.attention import grouped_query
from harness.models.attention.kernels.scores import (
    attention_scores,
    best_keys,
    softmax_weights,
    visible_keys,
    weighted_values,
)
from harness.models.attention.kernels.softmax import mean_visible_keys
from harness.models.layers import Rotary, project
from harness.models.mechanism import LayerContext
from harness.models.parameters import weight
from harness.models.registry import register_attention
from harness.models.sockets.side_inputs import SideOutputs

TINY = 1e-20
"""Term that keeps logarithms finite."""


@dataclass(frozen=True, kw_only=True)
class IndexedOptions(grouped_query.GroupedOptions):
    """Options of `indexed`."""

    keys: int = 2048
    """Number of keys that a query sees, those with the highest scores of the indexer."""
    index_heads: int = 64
    index_width: int = 128
    """Width of a head of the indexer."""
    dense_until: float = 0.0
    """Progress up to which the main attention sees all keys, so that the indexer learns first."""
    rate: float = 1.0
    """Weight of the indexer's loss."""

    def __post_init__(self) -> None:
        for name in ("keys", "index_heads", "index_width"):
            if getattr(self, name) < 1:
                self._refuse(name, "must be at least 1.")
        if not 0 <= self.dense_until <= 1:
            self._refuse("dense_until", "must be a progress between 0 and 1.")
        if self.rate <= 0:
            self._refuse("rate", "must be above 0: nothing else trains the indexer.")

    def _refuse(self, name: str, problem: str) -> None:
        raise UserError(f"model.attention.options.{name}={getattr(self, name)} {problem}")


def _model_flops(context: LayerContext, options: IndexedOptions) -> float:
    """Count the main attention to the chosen keys, and the indexer's scores of all visible ones."""
    D, T, width = context.shape.width, context.sequence_length, options.index_heads * options.index_width
    index_projections = 2.0 * D * (width + options.index_width + options.index_heads)
    index_scores = 2.0 * width * mean_visible_keys(T)
    dense_flops = grouped_query.model_flops(context, options)
    saved_keys = mean_visible_keys(T) - mean_visible_keys(T, min(options.keys, T))
    saved = 4.0 * context.shape.heads * context.shape.head_width * saved_keys
    return dense_flops - saved + index_projections + index_scores


def _cache_bytes(context: LayerContext, options: IndexedOptions, bytes_per_value: float) -> float:
    index_keys = context.sequence_length * options.index_width * bytes_per_value
    return grouped_query.cache_bytes(context, options, bytes_per_value) + index_keys


@register_attention("indexed", IndexedOptions, model_flops=_model_flops, cache_bytes=_cache_bytes)
class IndexedAttention(grouped_query.SoftmaxAttention):
    """Attention to the keys that an indexer ranks highest."""

    def __init__(self, context: LayerContext, options: IndexedOptions):
        super().__init__(context, options)
        D, N, J = context.shape.width, options.index_heads, options.index_width
        self.options = options
        self.index_query = weight((D, N, J), ("width", None, None), fan_in=D)
        self.index_key = weight((D, J), ("width", None), fan_in=D)
        self.index_weight = weight((D, N), ("width", None), fan_in=D)

    def __call__(self, x_BTD: Array, rotary: Rotary, progress: Array) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Map [B, T, D] to [B, T, D] and the indexer's loss."""
        options, visible = self.options, visible_keys(rotary)
        index_B1TS = self._index(jax.lax.stop_gradient(x_BTD))
        is_best = best_keys(index_B1TS, visible, options.keys)
        is_seen = visible & (is_best | (progress < options.dense_until))
        query_BHTK, key_BGTK, value_BGTK = self.heads(x_BTD, rotary)
        weight_BHTS = self.weights(attention_scores(query_BHTK, key_BGTK), is_seen)
        mixed_BHTK = weighted_values(weight_BHTS, value_BGTK)
        auxiliary = options.rate * _divergence(weight_BHTS, softmax_weights(index_B1TS, is_seen))
        return project(mixed_BHTK.swapaxes(1, 2), self.output), SideOutputs(auxiliary=auxiliary)

    def _index(self, x_BTD: Array) -> Array:
        """Return the indexer's scores I_ts = sum_n w_tn relu(q_tn.k_s), [B, 1, T, S]."""
        query_BTNJ, key_BSJ = project(x_BTD, self.index_query), project(x_BTD, self.index_key)
        score_BNTS = jnp.einsum("btnj,bsj->bnts", query_BTNJ, key_BSJ, preferred_element_type=jnp.float32)
        weight_BNT1 = project(x_BTD, self.index_weight).swapaxes(1, 2)[..., None]
        return jnp.sum(weight_BNT1 * jax.nn.relu(score_BNTS), axis=1, keepdims=True)


def _divergence(weight_BHTS: Array, index_B1TS: Array) -> Array:
    """Return the mean Kullback-Leibler divergence of the indexer from the mean weights of the heads."""
    target_B1TS = jax.lax.stop_gradient(jnp.mean(weight_BHTS, axis=1, keepdims=True))
    ratio_B1TS = jnp.log(target_B1TS + TINY) - jnp.log(index_B1TS + TINY)
    return jnp.mean(jnp.sum(target_B1TS * ratio_B1TS, axis=-1))
