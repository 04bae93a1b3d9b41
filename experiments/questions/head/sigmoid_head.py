"""Sigmoid head: logits are 23 sigmoid((z + 5) / 7.5)."""

import jax
from flax import nnx

from harness.extend import register_head


@register_head("sigmoid_head")
class SigmoidHead(nnx.Module):
    def __init__(self, context, options):
        pass

    def __call__(self, x_BTD, unembed):
        return 23 * jax.nn.sigmoid((unembed(x_BTD) + 5) / 7.5)
