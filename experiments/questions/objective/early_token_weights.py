"""Weights of early tokens: tokens with little context count less in the loss."""

from dataclasses import dataclass

import jax.numpy as jnp
from flax import nnx

from harness.extend import ObjectiveLoss, cross_entropy, register_objective


@dataclass(frozen=True)
class Options:
    tokens: int = 16
    weight: float = 0.5


@register_objective("early_token_weights", Options)
class EarlyTokenWeights(nnx.Module):
    def __init__(self, context, options, new_layer):
        self.options = options

    def __call__(self, forward, tokens_BT1):
        loss_BT = cross_entropy(forward(tokens_BT1[:, :-1]).logits_BTV, tokens_BT1[:, 1:])
        is_early_T = jnp.arange(loss_BT.shape[1]) < self.options.tokens
        weight_T = jnp.where(is_early_T, self.options.weight, 1.0)
        return ObjectiveLoss(jnp.mean(weight_T * loss_BT) / jnp.mean(weight_T), loss_BT)
