"""Bigram table: x += c_l row[hash(t, t before)] before every layer; the table starts at zero."""

from dataclasses import dataclass

import jax.numpy as jnp
from flax import nnx

from harness.extend import (
    PreNorm,
    SideOutputs,
    constant,
    gather_weight,
    lookup,
    register_block,
    register_embedding,
    shift_time,
    zeros,
)


@dataclass(frozen=True)
class Options:
    rows: int = 5
    """Rows of the table, as a multiple of the vocabulary."""


@register_embedding("bigram", Options, gives=("bigram_BTD",))
class Bigram(nnx.Module):
    def __init__(self, context, options):
        self.size = options.rows * context.shape.vocabulary
        self.rows = zeros((self.size, context.shape.width), ("vocabulary", "width"))

    def __call__(self, x_BTD, tokens_BT, document_BT):
        before_BT = shift_time(tokens_BT, 1, document_BT)
        pair_BT = ((36313 * tokens_BT) ^ (27191 * before_BT)) % (self.size - 1)
        return x_BTD, SideOutputs(gives={"bigram_BTD": lookup(self.rows, pair_BT, x_BTD.dtype)})


@register_block("bigram", scans=True)
class AddBigram(PreNorm):
    def __init__(self, context, options):
        super().__init__(context, options)
        self.share = constant(1, None, 0.1)

    def __call__(self, x_BTD, attend, feed, bigram_BTD):
        share = gather_weight(self.share, jnp.float32)[0].astype(x_BTD.dtype)
        return super().__call__(x_BTD + share * bigram_BTD, attend, feed)
