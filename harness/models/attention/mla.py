"""Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, section 2.1).

Keys and values are projected from one narrow latent per token. Decoding caches only that latent and one
rotary key that all heads share: a rotation between latent and key would prevent merging the two projections
into one. Queries are not compressed, as in DeepSeek-V2-Lite: that would save activations, not cache. In array
names, C is the latent's width here, and J that of the rotary part.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from flax import nnx
from jax import Array

from harness.core.errors import UserError
from harness.models.attention.kernels.choice import (
    ScoreShape,
    attention_function,
    choose_attention,
    executed_mixing,
)
from harness.models.attention.kernels.softmax import mean_visible_keys
from harness.models.layers import Rotary, project
from harness.models.mechanism import LayerContext, MatmulFlops
from harness.models.parameters import weight
from harness.models.registry import register_attention
from harness.parallel.sharding.axis_rules import out_sharding


@dataclass(frozen=True)
class MLAOptions:
    """Options of `mla`."""

    latent: int
    """Width of the latent (published: 4 head widths)."""
    rotary: int
    """Width of the rotary part of queries and keys, in addition to the head width, which is not rotated
    (published: half a head width)."""


def _projection_flops(context: LayerContext, options: MLAOptions) -> float:
    D, H, K = context.shape.width, context.shape.heads, context.shape.head_width
    query, down = D * H * (K + options.rotary), D * (options.latent + options.rotary)
    up, output = options.latent * H * 2 * K, H * K * D
    return 2.0 * (query + down + up + output)


def _mixing_flops(context: LayerContext, options: MLAOptions, keys: float) -> float:
    return 2.0 * context.shape.heads * (2 * context.shape.head_width + options.rotary) * keys


def _executed_flops(context: LayerContext, options: MLAOptions) -> MatmulFlops:
    weights = MatmulFlops(weights=_projection_flops(context, options))
    return weights + executed_mixing(context, _scores(context, options))


def _scores(context: LayerContext, options: MLAOptions) -> ScoreShape:
    return ScoreShape(context.shape.head_width + options.rotary, context.shape.head_width)


@register_attention(
    "mla",
    MLAOptions,
    model_flops=lambda context, options: (
        _projection_flops(context, options)
        + _mixing_flops(context, options, mean_visible_keys(context.sequence_length))
    ),
    executed_flops=_executed_flops,
    cache_bytes=lambda context, options, bytes_per_value: (
        (options.latent + options.rotary) * context.sequence_length * bytes_per_value
    ),
    supports_sequence_parallel=lambda context, options: True,
    kernel=lambda context, options: choose_attention(context, _scores(context, options)),
)
class LatentAttention(nnx.Module):
    """Latent attention. With `qk_norm`, queries and the shared rotary key are normalised; the other keys have
    only the latent's norm, because a norm after the projection would have to be cached for each head."""

    def __init__(self, context: LayerContext, options: MLAOptions):
        _check(context, options)
        D, H, K = context.shape.width, context.shape.heads, context.shape.head_width
        C, J = options.latent, options.rotary
        self.head_width, self.rotary_width = K, J
        self.kernel = choose_attention(context, _scores(context, options))
        self.query = weight((D, H, K + J), ("width", "heads", None), fan_in=D)
        self.latent = weight((D, C), ("width", None), fan_in=D)
        self.latent_norm = context.norm(C, None)
        self.shared_key = weight((D, J), ("width", None), fan_in=D)
        self.key = weight((C, H, K), (None, "heads", None), fan_in=C)
        self.value = weight((C, H, K), (None, "heads", None), fan_in=C)
        self.output = weight((H, K, D), ("heads", None, "width"), fan_in=H * K, depth=context.shape.layers)
        self.query_norm = context.norm(K + J, None) if context.qk_norm else None
        self.key_norm = context.norm(J, None) if context.qk_norm else None

    def __call__(self, x_BTD: Array, rotary: Rotary) -> Array:
        """Map [B, T, D] to [B, T, D]; every (K / J)th frequency of `rotary` rotates the J shared numbers."""
        stride = self.head_width // self.rotary_width
        # The table of the rotary part, with the same range of frequencies.
        rotate = Rotary(rotary.cos_TJ[:, ::stride], rotary.sin_TJ[:, ::stride])
        latent_BTC = self.latent_norm(project(x_BTD, self.latent))
        key_BHTK = project(latent_BTC, self.key).swapaxes(1, 2)
        value_BHTK = project(latent_BTC, self.value).swapaxes(1, 2)
        query_BHTK, key_BHTK = self._query(x_BTD, rotate), self._key(x_BTD, key_BHTK, rotate)
        attention = attention_function(self.kernel, rotary.sequence_shards)
        mixed_BHTK = attention(query_BHTK, key_BHTK, value_BHTK, None, document_BT=rotary.document_BT)
        return project(mixed_BHTK.swapaxes(1, 2), self.output)

    def _query(self, x_BTD: Array, rotate: Rotary) -> Array:
        query_BHTK = project(x_BTD, self.query).swapaxes(1, 2)
        query_BHTK = self.query_norm(query_BHTK) if self.query_norm else query_BHTK
        content_BHTK, position_BHTJ = jnp.split(query_BHTK, [self.head_width], axis=-1)
        return jnp.concatenate([content_BHTK, rotate(position_BHTJ)], axis=-1)

    def _key(self, x_BTD: Array, key_BHTK: Array, rotate: Rotary) -> Array:
        shared_BTJ = project(x_BTD, self.shared_key)
        shared_BTJ = rotate(self.key_norm(shared_BTJ) if self.key_norm else shared_BTJ)
        shape, split = (*key_BHTK.shape[:3], self.rotary_width), out_sharding("batch", "heads", None, None)
        shared_BHTJ = jnp.broadcast_to(shared_BTJ[:, None], shape, out_sharding=split)
        return jnp.concatenate([key_BHTK, shared_BHTJ], axis=-1)


def _check(context: LayerContext, options: MLAOptions) -> None:
    D, H, K = context.shape.width, context.shape.heads, context.shape.head_width
    largest = min(D, 2 * H * K)
    if not 1 <= options.latent <= largest:
        raise UserError(
            f"model.attention.options.latent={options.latent} must be between 1 and {largest}:"
            f" the latent is projected from {D} numbers and replaces {2 * H * K}."
        )
    if options.rotary < 2 or options.rotary % 2 or K % options.rotary:
        valid = ", ".join(str(width) for width in range(2, K + 1, 2) if K % width == 0)
        raise UserError(
            f"model.attention.options.rotary={options.rotary} is not an even divisor of"
            f" model.head_width={K}. Choose one of {valid}."
        )
