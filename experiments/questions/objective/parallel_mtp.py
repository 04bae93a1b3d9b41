"""Multi-token prediction in parallel: a layer for each distance, one head (arXiv:2404.19737)."""

from dataclasses import dataclass

import jax.numpy as jnp
from flax import nnx

from harness.extend import ObjectiveLoss, cross_entropy, register_objective


@dataclass(frozen=True)
class Options:
    ahead: int = 3
    """Tokens beyond the next one that are predicted too (published: 3)."""


@register_objective("parallel_mtp", Options)
class ParallelMTP(nnx.Module):
    def __init__(self, context, options, new_layer):
        self.layers = nnx.List([new_layer(context.shape.layers) for _ in range(options.ahead)])

    def __call__(self, forward, tokens_BT1):
        trunk = forward(tokens_BT1[:, :-1])
        loss_BT = cross_entropy(trunk.logits_BTV, tokens_BT1[:, 1:])
        total = jnp.mean(loss_BT)
        for index, layer in enumerate(self.layers, start=1):
            logits_BTV = forward.unembed(forward.apply_layer(layer, trunk.hidden_BTD, tokens_BT1[:, :-1]))
            total += jnp.mean(cross_entropy(logits_BTV[:, :-index], tokens_BT1[:, 1 + index :]))
        return ObjectiveLoss(total, loss_BT)
