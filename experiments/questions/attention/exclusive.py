"""Exclusive attention: y -= a (y.v / v.v) v, v the token's own value; a = 1, or tanh(r_h) learned from 0."""

from dataclasses import dataclass

import jax.numpy as jnp

from harness.extend import (
    LayerContext,
    ScoreOptions,
    SoftmaxAttention,
    constant,
    gather_weight,
    register_softmax,
)


@dataclass(frozen=True, kw_only=True)
class Options(ScoreOptions):
    learned: bool = False
    """Learn a share a head from 0, instead of 1."""


@register_softmax("exclusive", Options)
class Exclusive(SoftmaxAttention):
    def __init__(self, context: LayerContext, options: Options):
        super().__init__(context, options)
        self.share = constant(context.shape.heads, "heads", 0.0) if options.learned else None

    def mix(self, query_BHTK, key_BGTK, value_BGTK, rotary):
        mixed_BHTK = super().mix(query_BHTK, key_BGTK, value_BGTK, rotary)
        # Options without kv_heads: each head has its own value.
        along_BHT1 = jnp.sum(mixed_BHTK * value_BGTK, axis=-1, keepdims=True)
        length_BHT1 = jnp.sum(jnp.square(value_BGTK), axis=-1, keepdims=True) + 1e-6
        own_BHTK = along_BHT1 / length_BHT1 * value_BGTK
        if self.share is None:
            return mixed_BHTK - own_BHTK
        return mixed_BHTK - jnp.tanh(gather_weight(self.share, own_BHTK.dtype))[:, None, None] * own_BHTK
