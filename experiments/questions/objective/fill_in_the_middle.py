"""Fill in the middle: half of the rows are read as prefix, suffix, middle (arXiv:2207.14255).

A sentinel is a token of the vocabulary that takes the place of one token at each joint.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from harness.extend import ObjectiveLoss, cross_entropy, register_objective


@dataclass(frozen=True)
class Options:
    rate: float = 0.5
    """Share of the rows that are cut."""
    sentinel: int = 0
    """Token at the joints."""


@register_objective("fill_in_the_middle", Options)
class FillInTheMiddle(nnx.Module):
    def __init__(self, context, options, new_layer):
        self.options = options

    def __call__(self, forward, tokens_BT1, key):
        B, T1 = tokens_BT1.shape
        cut_key, rate_key = jax.random.split(key)
        cuts_B2 = jnp.sort(jax.random.randint(cut_key, (B, 2), 1, T1), axis=1)
        first_B1, second_B1 = cuts_B2[:, :1], cuts_B2[:, 1:]
        place_T = jnp.arange(T1)
        part_BT = jnp.where(place_T < first_B1, 0, jnp.where(place_T < second_B1, 2, 1))
        order_BT = jnp.argsort(part_BT, axis=1, stable=True)
        moved_BT = jnp.take_along_axis(tokens_BT1, order_BT, axis=1)
        part_BT = jnp.take_along_axis(part_BT, order_BT, axis=1)
        is_joint_BT = jnp.pad(part_BT[:, 1:] != part_BT[:, :-1], ((0, 0), (1, 0)))
        moved_BT = jnp.where(is_joint_BT, self.options.sentinel, moved_BT)
        is_cut_B1 = jax.random.bernoulli(rate_key, self.options.rate, (B, 1))
        rows_BT1 = jnp.where(is_cut_B1, moved_BT, tokens_BT1)
        loss_BT = cross_entropy(forward(rows_BT1[:, :-1]).logits_BTV, rows_BT1[:, 1:])
        return ObjectiveLoss(jnp.mean(loss_BT), loss_BT)
