"""Mixture of denoisers: spans move to the end of a row that begins with a mode (arXiv:2205.05131)."""

import jax
import jax.numpy as jnp
from flax import nnx

from harness.extend import ObjectiveLoss, cross_entropy, register_objective

DENOISERS = ((3, 0.15), (32, 0.5), (1, 0.0))
"""Length of a span and hidden share of each mode; the last one is plain text."""


@register_objective("span_corruption")
class SpanCorruption(nnx.Module):
    def __init__(self, context, options, new_layer):
        pass

    def __call__(self, forward, tokens_BT1, key):
        B, T1 = tokens_BT1.shape
        mode_key, span_key = jax.random.split(key)
        mode_B1 = jax.random.randint(mode_key, (B, 1), 0, len(DENOISERS))
        length_B1, share_B1 = (jnp.asarray(column)[mode_B1] for column in zip(*DENOISERS, strict=True))
        draw_BT = jax.random.uniform(span_key, (B, T1))
        block_BT = jnp.arange(T1) // length_B1
        is_hidden_BT = jnp.take_along_axis(draw_BT, block_BT, axis=1) < share_B1
        order_BT = jnp.argsort(is_hidden_BT, axis=1, stable=True)
        moved_BT1 = jnp.take_along_axis(tokens_BT1, order_BT, axis=1)
        rows_BT1 = moved_BT1.at[:, 0].set(mode_B1[:, 0])  # the first tokens of the vocabulary are the modes
        loss_BT = cross_entropy(forward(rows_BT1[:, :-1]).logits_BTV, rows_BT1[:, 1:])
        return ObjectiveLoss(jnp.mean(loss_BT), loss_BT)
