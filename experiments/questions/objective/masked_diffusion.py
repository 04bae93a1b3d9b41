"""Masked diffusion: tokens are masked with probability t; CE / t at the masks (arXiv:2502.09992)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from harness.extend import (
    GroupedOptions,
    ObjectiveLoss,
    SoftmaxAttention,
    attention_scores,
    cross_entropy,
    project,
    register_attention,
    register_objective,
    weighted_values,
)


@register_attention("two_way", GroupedOptions)
class TwoWay(SoftmaxAttention):
    def __call__(self, x_BTD, rotary, masked_BT=None):
        if masked_BT is None:  # a check of causality, or a sample: as any other model
            return super().__call__(x_BTD, rotary)
        query_BHTK, key_BGTK, value_BGTK = self.heads(x_BTD, rotary)
        visible_BHTS = jnp.ones_like(masked_BT, bool)[:, None, None]
        weight_BHTS = self.weights(attention_scores(query_BHTK, key_BGTK), visible_BHTS)
        return project(weighted_values(weight_BHTS, value_BGTK).swapaxes(1, 2), self.output)


@dataclass(frozen=True)
class Options:
    mask: int = 0
    """Token that stands for a mask."""
    levels: int = 8
    """Shares of masked tokens that judging averages over (published: 512)."""


@register_objective("masked_diffusion", Options, gives=("masked_BT",))
class MaskedDiffusion(nnx.Module):
    def __init__(self, context, options, new_layer):
        self.options = options

    def __call__(self, forward, tokens_BT1, key):
        share_key, mask_key = jax.random.split(key)
        share = jax.random.uniform(share_key, minval=0.1, maxval=1.0)
        bounds = [self._bound(forward, tokens_BT1[:, 1:], t, mask_key) for t in (share, 1.1 - share)]
        loss_BT = (bounds[0] + bounds[1]) / 2
        return ObjectiveLoss(jnp.mean(loss_BT), loss_BT)

    def judge(self, forward, tokens_BT1):
        levels, key = self.options.levels, jax.random.key(0)
        shares = [(level + 0.5) / levels for level in range(levels)]
        bounds = [
            self._bound(forward, tokens_BT1[:, 1:], share, jax.random.fold_in(key, level))
            for level, share in enumerate(shares)
        ]
        return sum(bounds) / levels

    def _bound(self, forward, tokens_BT, share, key):
        masked_BT = jax.random.uniform(key, tokens_BT.shape) < share
        seen_BT = jnp.where(masked_BT, self.options.mask, tokens_BT)
        loss_BT = cross_entropy(forward(seen_BT, masked_BT=masked_BT).logits_BTV, tokens_BT)
        return jnp.where(masked_BT, loss_BT / share, 0.0)
