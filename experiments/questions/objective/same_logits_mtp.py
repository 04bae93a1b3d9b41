"""Multi-token prediction on the same logits: sum_k w_k CE(z_t, y_(t+k)), with w -> (1, 0, 0)."""

import jax.numpy as jnp
from flax import nnx

from harness.extend import ObjectiveLoss, cross_entropy, register_objective

WEIGHTS = ((0.5, 0.25), (0.5, 0.0), (0.0, 0.0))
"""Weights of the second and third token in each third of the run."""


@register_objective("same_logits_mtp")
class SameLogitsMTP(nnx.Module):
    def __init__(self, context, options, new_layer):
        pass

    def __call__(self, forward, tokens_BT1, progress):
        logits_BTV = forward(tokens_BT1[:, :-1]).logits_BTV
        loss_BT = cross_entropy(logits_BTV, tokens_BT1[:, 1:])
        total, third = jnp.mean(loss_BT), jnp.minimum((progress * 3).astype(jnp.int32), 2)
        for ahead in (1, 2):
            share = jnp.asarray([weights[ahead - 1] for weights in WEIGHTS])[third]
            total += share * jnp.mean(cross_entropy(logits_BTV[:, :-ahead], tokens_BT1[:, 1 + ahead :]))
        return ObjectiveLoss(total, loss_BT)
