"""Rho-1: tokens whose loss is most above a reference model's are minimised (arXiv:2404.07965)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from harness.extend import ObjectiveLoss, cross_entropy, open_reference, register_objective


@dataclass(frozen=True)
class Options:
    reference: str
    """A trained run, RUN or RUN@STEP."""
    share: float = 0.6


@register_objective("rho_one", Options)
class RhoOne(nnx.Module):
    def __init__(self, context, options, new_layer):
        self.share = options.share
        self.reference = open_reference(options.reference, "objective.options.reference")

    def __call__(self, forward, tokens_BT1):
        inputs_BT, target_BT = tokens_BT1[:, :-1], tokens_BT1[:, 1:]
        loss_BT = cross_entropy(forward(inputs_BT).logits_BTV, target_BT)
        reference_BT = cross_entropy(self.reference.logits(inputs_BT), target_BT)
        excess_BT = jax.lax.stop_gradient(loss_BT) - reference_BT
        bound_B1 = jnp.quantile(excess_BT, 1 - self.share, axis=1, keepdims=True)
        counts_BT = excess_BT >= bound_B1
        return ObjectiveLoss(jnp.sum(loss_BT * counts_BT) / jnp.sum(counts_BT), loss_BT)
