"""Attention in chunks: a query sees the keys before it with the same floor(t / chunk)."""

from dataclasses import dataclass

import jax.numpy as jnp

from harness.extend import (
    GroupedOptions,
    LayerContext,
    SoftmaxAttention,
    attention_scores,
    register_softmax,
    visible_keys,
    weighted_values,
)


@dataclass(frozen=True, kw_only=True)
class Options(GroupedOptions):
    chunk: int = 8192


@register_softmax("chunks", Options, in_steps=True)
class Chunks(SoftmaxAttention):
    def __init__(self, context: LayerContext, options: Options):
        super().__init__(context, options)
        self.chunk = options.chunk

    def mix(self, query_BHTK, key_BGTK, value_BGTK, rotary):
        chunk_T = jnp.arange(query_BHTK.shape[2]) // self.chunk
        visible_BHTS = visible_keys(rotary) & (chunk_T[:, None] == chunk_T)
        return weighted_values(self.weights(attention_scores(query_BHTK, key_BGTK), visible_BHTS), value_BGTK)
