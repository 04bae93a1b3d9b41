"""Head with a temperature and a bias: logits are exp(s) z + b, both learned from zero."""

import jax.numpy as jnp
from flax import nnx

from harness.extend import gather_weight, register_head, zeros


@register_head("learned_temperature")
class LearnedTemperature(nnx.Module):
    def __init__(self, context, options):
        self.bias = zeros((context.shape.vocabulary,), (None,))
        self.log_scale = zeros((1,), (None,))

    def __call__(self, x_BTD, unembed):
        logits_BTV = unembed(x_BTD)
        bias_V = gather_weight(self.bias, jnp.float32)
        bias_V = jnp.pad(bias_V, (0, logits_BTV.shape[-1] - len(bias_V)))
        return jnp.exp(gather_weight(self.log_scale, jnp.float32)) * logits_BTV + bias_V
