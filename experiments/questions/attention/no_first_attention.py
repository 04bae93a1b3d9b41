"""No attention in the first layer: its branch is zero and has no parameters."""

import jax.numpy as jnp
from flax import nnx

from harness.extend import NO_PERIOD, ScoreOptions, SoftmaxAttention, register_attention


class Nothing(nnx.Module):
    def __call__(self, x_BTD):
        return jnp.zeros_like(x_BTD)


@register_attention("no_first_attention", period=lambda options: NO_PERIOD)
def no_first_attention(context, options):
    return SoftmaxAttention(context, ScoreOptions()) if context.layer else Nothing()
