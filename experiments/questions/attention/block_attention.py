"""Mixture of block attention: softmax over the query's own block and the k - 1 earlier ones with the largest
q.mean(k of the block). Earlier blocks lie whole in the query's document."""

from dataclasses import dataclass

from harness.extend import (
    GroupedOptions,
    LayerContext,
    SoftmaxAttention,
    attention_scores,
    best_keys,
    block_means,
    earlier_blocks,
    own_block,
    register_attention,
    spread_blocks,
    visible_keys,
    weighted_values,
)


@dataclass(frozen=True, kw_only=True)
class Options(GroupedOptions):
    block: int = 512
    top: int = 3
    """Blocks that a query reads, its own among them."""


@register_attention("block_attention", Options)
class BlockAttention(SoftmaxAttention):
    def __init__(self, context: LayerContext, options: Options):
        super().__init__(context, options)
        self.options = options

    def mix(self, query_BHTK, key_BGTK, value_BGTK, rotary):
        size, T = self.options.block, query_BHTK.shape[2]
        score_BHTN = attention_scores(query_BHTK, block_means(key_BGTK, size))
        is_chosen = best_keys(score_BHTN, earlier_blocks(rotary, size), self.options.top - 1)
        visible = visible_keys(rotary) & spread_blocks(is_chosen | own_block(T, size), size, T)
        return weighted_values(self.weights(attention_scores(query_BHTK, key_BGTK), visible), value_BGTK)
