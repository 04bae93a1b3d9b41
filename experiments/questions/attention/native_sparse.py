"""Native sparse attention: three softmaxes summed by gates sigmoid(x w): over block means, over the keys of
the blocks with most mass there (own and first block always), over a window. Blocks lie in the document."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from harness.extend import (
    GroupedOptions,
    LayerContext,
    SoftmaxAttention,
    attention_scores,
    best_keys,
    block_means,
    earlier_blocks,
    own_block,
    project,
    register_attention,
    spread_blocks,
    visible_keys,
    weight,
    weighted_values,
)


@dataclass(frozen=True, kw_only=True)
class Options(GroupedOptions):
    block: int = 64
    top: int = 16
    """Blocks that a query reads beside its own."""
    window: int = 512


@register_attention("native_sparse", Options)
class NativeSparse(SoftmaxAttention):
    def __init__(self, context: LayerContext, options: Options):
        super().__init__(context, options)
        D, H = context.shape.width, context.shape.heads
        self.options, self.gate = options, weight((D, H, 3), ("width", "heads", None), fan_in=D)

    def attend_heads(self, x_BTD, rotary):
        query_BHTK, key_BGTK, value_BGTK = self.heads(x_BTD, rotary)
        size, T = self.options.block, x_BTD.shape[1]
        is_whole = earlier_blocks(rotary, size)
        means = block_means(key_BGTK, size), block_means(value_BGTK, size)
        weight_BHTN = self.weights(attention_scores(query_BHTK, means[0]), is_whole)
        mass_B1TN = jnp.sum(weight_BHTN, axis=1, keepdims=True).at[..., 0].add(1e6)
        is_chosen = best_keys(mass_B1TN, is_whole, self.options.top) | own_block(T, size)
        score_BHTS = attention_scores(query_BHTK, key_BGTK)
        visible = visible_keys(rotary) & spread_blocks(is_chosen, size, T)
        nearby = visible_keys(rotary, self.options.window)
        gate_BHT3 = jax.nn.sigmoid(project(x_BTD, self.gate)).swapaxes(1, 2)
        mixed_BHTK = (
            gate_BHT3[..., :1] * weighted_values(weight_BHTN, means[1])
            + gate_BHT3[..., 1:2] * weighted_values(self.weights(score_BHTS, visible), value_BGTK)
            + gate_BHT3[..., 2:] * weighted_values(self.weights(score_BHTS, nearby), value_BGTK)
        )
        return mixed_BHTK.swapaxes(1, 2)
