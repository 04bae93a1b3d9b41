"""Compressed attention: one softmax over the last `window` keys and over pooled keys and values. A pool ends
every `stride` tokens, weighs the `size` tokens up to there by softmax_j(gate_(t-j) + place_j) a channel, and
is seen from there on, if it lies whole in the document. With `top`, those with the largest q.k."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from harness.extend import (
    GroupedOptions,
    LayerContext,
    SoftmaxAttention,
    attention_scores,
    best_keys,
    gather_weight,
    project,
    register_attention,
    shift_time,
    visible_keys,
    weight,
    weighted_values,
    zeros,
)


@dataclass(frozen=True, kw_only=True)
class Options(GroupedOptions):
    size: int = 8
    stride: int = 4
    window: int = 128
    top: int | None = None


@register_attention("compressed_keys", Options)
class CompressedKeys(SoftmaxAttention):
    def __init__(self, context: LayerContext, options: Options):
        super().__init__(context, options)
        D, (G, K), axes = context.shape.width, self.key.shape[1:], self.key.axes
        self.options, self.gate = options, weight((D, G, K), axes, fan_in=D)
        self.place = zeros((options.size, G, K), (None, *axes[1:]))

    def attend_heads(self, x_BTD, rotary):
        query_BHTK, key_BGTK, value_BGTK = self.heads(x_BTD, rotary)
        logit_BTGK = project(x_BTD, self.gate)
        place_JGK = gather_weight(self.place, logit_BTGK.dtype)
        share_JBTGK = jax.nn.softmax(self._earlier(logit_BTGK) + place_JGK[:, None, None], axis=0)
        pooled_keys, pooled_values = (
            jnp.sum(share_JBTGK * self._earlier(x_BGTK.swapaxes(1, 2)), axis=0).swapaxes(1, 2)
            for x_BGTK in (key_BGTK, value_BGTK)
        )
        ends = self._ends(x_BTD)
        pooled_keys, pooled_values = pooled_keys[:, :, ends], pooled_values[:, :, ends]
        score_BHTS, score_BHTN = (attention_scores(query_BHTK, key) for key in (key_BGTK, pooled_keys))
        seen = self._seen_pools(x_BTD, rotary)
        if self.options.top is not None:
            seen = best_keys(score_BHTN, seen, self.options.top)
        nearby = visible_keys(rotary, self.options.window) | jnp.zeros_like(seen[..., :1])
        every = jnp.concatenate([nearby, seen], axis=-1)
        weights = self.weights(jnp.concatenate([score_BHTS, score_BHTN], axis=-1), every)
        own, pooled = jnp.split(weights, [score_BHTS.shape[-1]], axis=-1)
        mixed_BHTK = weighted_values(own, value_BGTK) + weighted_values(pooled, pooled_values)
        return mixed_BHTK.swapaxes(1, 2)

    def _earlier(self, x_BTGK):
        return jnp.stack([shift_time(x_BTGK, by, None) for by in range(self.options.size)])

    def _ends(self, x_BTD):
        return slice(self.options.stride - 1, x_BTD.shape[1], self.options.stride)

    def _seen_pools(self, x_BTD, rotary):
        position_T = jnp.arange(x_BTD.shape[1])
        end_N = position_T[self._ends(x_BTD)]
        seen = ((position_T[:, None] >= end_N) & (end_N >= self.options.size - 1))[None, None]
        if rotary.document_BT is None:
            return seen
        # Documents are numbered in order, so a pool whose first token is in the document lies in it.
        first_BN = rotary.document_BT[:, jnp.maximum(end_N - self.options.size + 1, 0)]
        return seen & (first_BN[:, None, None] == rotary.document_BT[:, None, :, None])
