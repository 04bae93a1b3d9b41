"""Multi-token prediction in sequence: one more layer reads trunk and next token (arXiv:2412.19437)."""

from dataclasses import dataclass

import jax.numpy as jnp
from flax import nnx

from harness.extend import ObjectiveLoss, RMSNorm, cross_entropy, project, register_objective, weight


@dataclass(frozen=True)
class Options:
    first: float = 0.3
    """Weight of the second loss in the first half of the run."""
    second: float = 0.1
    """Weight in the second half."""


@register_objective("sequential_mtp", Options)
class SequentialMTP(nnx.Module):
    def __init__(self, context, options, new_layer):
        D = context.shape.width
        self.options = options
        self.layer = new_layer(context.shape.layers)
        self.merge = weight((2 * D, D), (None, "width"), fan_in=2 * D)
        self.norms = nnx.List([RMSNorm(D, context.norm_epsilon) for _ in range(2)])

    def __call__(self, forward, tokens_BT1, progress):
        trunk = forward(tokens_BT1[:, :-1])
        loss_BT = cross_entropy(trunk.logits_BTV, tokens_BT1[:, 1:])
        next_BTD = self.norms[1](forward.embed(tokens_BT1[:, 1:-1]))
        read_BTE = jnp.concatenate([self.norms[0](trunk.hidden_BTD[:, :-1]), next_BTD], axis=-1)
        read_BTD = project(read_BTE, self.merge)
        hidden_BTD = forward.apply_layer(self.layer, read_BTD, tokens_BT1[:, :-2])
        later = jnp.mean(cross_entropy(forward.unembed(hidden_BTD), tokens_BT1[:, 2:]))
        share = jnp.where(progress < 0.5, self.options.first, self.options.second)
        return ObjectiveLoss(jnp.mean(loss_BT) + share * later, loss_BT)
