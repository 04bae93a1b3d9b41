"""Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, section 2.1).

Keys and values are made from one narrow latent a token, which is all that decoding keeps, beside one
rotary key that all heads share: a rotation between latent and key would keep the two products from being
multiplied into one. Queries are not compressed, as in DeepSeek-V2-Lite: that spares activations, no cache.
In names of arrays C is the latent's width here, and J that of the part that turns.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from flax import nnx
from jax import Array

from harness.core.errors import UserError
from harness.models.attention.kernels.ring import attend_around, keys_multiplied_around
from harness.models.attention.kernels.softmax import attend, keys_seen
from harness.models.layers import RMSNorm, Rotary, project
from harness.models.mechanism import Products, Site
from harness.models.parameters import weight
from harness.models.registry import attention
from harness.parallel.sharding.axis_rules import layout


@dataclass(frozen=True)
class Options:
    latent: int
    """Width of what keys and values are made from (published: 4 head widths)."""
    rotary: int
    """Width of the part of queries and keys that turns, beside the head width that does not
    (published: half a head width)."""


def _projections(site: Site, options: Options) -> float:
    D, H, K = site.shape.width, site.shape.heads, site.shape.head_width
    query, down = D * H * (K + options.rotary), D * (options.latent + options.rotary)
    up, output = options.latent * H * 2 * K, H * K * D
    return 2.0 * (query + down + up + output)


def _mixing(site: Site, options: Options, keys: float) -> float:
    return 2.0 * site.shape.heads * (2 * site.shape.head_width + options.rotary) * keys


def _executed(site: Site, options: Options) -> Products:
    keys = keys_multiplied_around(site.sequence_length, None, site.parts)
    scored = 2.0 * site.shape.heads * (site.shape.head_width + options.rotary) * keys
    return Products(
        weights=_projections(site, options),
        activations=_mixing(site, options, keys),
        rescored=scored if site.parts > 1 else 0.0,
    )


@attention(
    "mla",
    Options,
    model_flops=lambda site, options: (
        _projections(site, options) + _mixing(site, options, keys_seen(site.sequence_length))
    ),
    executed_flops=_executed,
    cache_bytes=lambda site, options, each: (options.latent + options.rotary) * site.sequence_length * each,
    splits=lambda site, options: True,
)
class LatentAttention(nnx.Module):
    """With `qk_norm` a query and the shared rotary key are normed; the other keys are by their latent alone,
    since a norm after it would have to be kept for each head."""

    def __init__(self, site: Site, options: Options):
        _check(site, options)
        D, H, K = site.shape.width, site.shape.heads, site.shape.head_width
        C, J = options.latent, options.rotary
        self.head_width, self.rotary_width = K, J
        self.query = weight((D, H, K + J), ("width", "heads", None), fan_in=D)
        self.latent = weight((D, C), ("width", None), fan_in=D)
        self.latent_norm = RMSNorm(C, site.norm_epsilon, None)
        self.shared_key = weight((D, J), ("width", None), fan_in=D)
        self.key = weight((C, H, K), (None, "heads", None), fan_in=C)
        self.value = weight((C, H, K), (None, "heads", None), fan_in=C)
        self.output = weight((H, K, D), ("heads", None, "width"), fan_in=H * K, depth=site.shape.layers)
        self.query_norm = RMSNorm(K + J, site.norm_epsilon, None) if site.qk_norm else None
        self.key_norm = RMSNorm(J, site.norm_epsilon, None) if site.qk_norm else None

    def __call__(self, x_BTD: Array, rotary: Rotary) -> Array:
        turn = self._turning(rotary)
        latent_BTC = self.latent_norm(project(x_BTD, self.latent))
        key_BHTK = project(latent_BTC, self.key).swapaxes(1, 2)
        value_BHTK = project(latent_BTC, self.value).swapaxes(1, 2)
        query_BHTK, key_BHTK = self._query(x_BTD, turn), self._key(x_BTD, key_BHTK, turn)
        over = attend if rotary.parts == 1 else attend_around
        mixed_BHTK = over(query_BHTK, key_BHTK, value_BHTK, None, document_BT=rotary.document_BT)
        return project(mixed_BHTK.swapaxes(1, 2), self.output)

    def _turning(self, rotary: Rotary) -> Rotary:
        """The table of the narrower part: of its pairs, those with the same frequencies."""
        every = self.head_width // self.rotary_width
        return Rotary(rotary.cos_TJ[:, ::every], rotary.sin_TJ[:, ::every])

    def _query(self, x_BTD: Array, turn: Rotary) -> Array:
        query_BHTK = project(x_BTD, self.query).swapaxes(1, 2)
        query_BHTK = self.query_norm(query_BHTK) if self.query_norm else query_BHTK
        still, turning = jnp.split(query_BHTK, [self.head_width], axis=-1)
        return jnp.concatenate([still, turn(turning)], axis=-1)

    def _key(self, x_BTD: Array, key_BHTK: Array, turn: Rotary) -> Array:
        shared_BTJ = project(x_BTD, self.shared_key)
        shared_BTJ = turn(self.key_norm(shared_BTJ) if self.key_norm else shared_BTJ)
        shape = (*key_BHTK.shape[:3], self.rotary_width)
        shared_BHTJ = jnp.broadcast_to(
            shared_BTJ[:, None], shape, out_sharding=layout("batch", "heads", None, None)
        )
        return jnp.concatenate([key_BHTK, shared_BHTJ], axis=-1)


def _check(site: Site, options: Options) -> None:
    D, H, K = site.shape.width, site.shape.heads, site.shape.head_width
    most = min(D, 2 * H * K)
    if not 1 <= options.latent <= most:
        raise UserError(
            f"model.attention.options.latent={options.latent} compresses nothing: choose 1 to {most},"
            f" since it is made from {D} numbers and stands for {2 * H * K}."
        )
    if options.rotary < 2 or options.rotary % 2 or K % options.rotary:
        valid = ", ".join(str(width) for width in range(2, K + 1, 2) if K % width == 0)
        raise UserError(
            f"model.attention.options.rotary={options.rotary} is no even divisor of"
            f" model.head_width={K}: choose one of {valid}."
        )
