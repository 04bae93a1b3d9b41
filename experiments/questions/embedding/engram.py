"""Engram: hashed n-grams are looked up, gated by the stream and added at one layer (arXiv:2601.07372)."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from harness.extend import (
    PreNorm,
    RMSNorm,
    ShortConvolution,
    lookup,
    project,
    register_block,
    shift_time,
    weight,
)

PRIMES = (1_000_003, 998_244_353, 19_349_663, 83_492_791, 2_654_435, 40_503, 65_599, 16_777_619)


@dataclass(frozen=True)
class Options:
    layer: int = 1
    hashes: int = 8
    rows: int = 509
    """Rows of each hash: a prime number."""
    width: int = 8
    """Values of a row."""


@register_block("engram", Options)
class Engram(PreNorm):
    def __init__(self, context, options):
        super().__init__(context, options)
        self.options, self.here = options, context.layer == options.layer
        D, E = context.shape.width, 2 * options.hashes * options.width
        if self.here:
            count = 2 * options.hashes * options.rows
            self.grams = weight((count, options.width), ("vocabulary", None), fan_in=options.width)
            self.key = weight((E, D), (None, "width"), fan_in=E)
            self.value = weight((E, D), (None, "width"), fan_in=E)
            self.norms = nnx.List([RMSNorm(D, context.norm_epsilon) for _ in range(3)])
            self.convolution = ShortConvolution((D,), ("width",))

    def __call__(self, x_BTD, attend, feed, tokens_BT, document_BT):
        if self.here:
            row_BTE = self._rows(tokens_BT, document_BT, x_BTD.dtype)
            query_BTD, key_BTD = self.norms[0](x_BTD), self.norms[1](project(row_BTE, self.key))
            score_BT1 = jnp.sum(query_BTD * key_BTD, axis=-1, keepdims=True) / math.sqrt(x_BTD.shape[-1])
            gate_BT1 = jax.nn.sigmoid(jnp.sign(score_BT1) * jnp.sqrt(jnp.abs(score_BT1) + 1e-6))
            value_BTD = gate_BT1 * project(row_BTE, self.value)
            mixed_BTD = self.convolution(self.norms[2](value_BTD), document_BT)
            x_BTD = x_BTD + value_BTD + jax.nn.silu(mixed_BTD)
        return super().__call__(x_BTD, attend, feed)

    def _rows(self, tokens_BT, document_BT, dtype):
        gram_BT, index, rows = tokens_BT, 0, []
        for back in (1, 2):
            gram_BT = gram_BT * 31 + shift_time(tokens_BT, back, document_BT)
            for prime in PRIMES[: self.options.hashes]:
                slot_BT = (gram_BT * prime + back) % self.options.rows + index * self.options.rows
                rows.append(lookup(self.grams, slot_BT, dtype))
                index += 1
        return jnp.concatenate(rows, axis=-1)
