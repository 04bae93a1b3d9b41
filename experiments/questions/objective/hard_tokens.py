"""Hard tokens: only the share of tokens with the largest loss is minimised (after arXiv:2404.07965)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from harness.extend import ObjectiveLoss, cross_entropy, register_objective


@dataclass(frozen=True)
class Options:
    share: float = 0.6


@register_objective("hard_tokens", Options)
class HardTokens(nnx.Module):
    def __init__(self, context, options, new_layer):
        self.share = options.share

    def __call__(self, forward, tokens_BT1):
        loss_BT = cross_entropy(forward(tokens_BT1[:, :-1]).logits_BTV, tokens_BT1[:, 1:])
        bound_B1 = jnp.quantile(jax.lax.stop_gradient(loss_BT), 1 - self.share, axis=1, keepdims=True)
        is_hard_BT = loss_BT >= bound_B1
        return ObjectiveLoss(jnp.sum(loss_BT * is_hard_BT) / jnp.sum(is_hard_BT), loss_BT)
