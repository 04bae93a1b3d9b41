"""MLP router: scores = sigmoid(silu(x W1) W2), with a hidden layer as wide as x."""

import jax
import jax.numpy as jnp

from harness.extend import MoE, MoEOptions, project, register_experts, weight


@register_experts("mlp_router", MoEOptions, lambda context, options: 2.0 * context.shape.width**2)
class MLPRouter(MoE):
    def __init__(self, context, options):
        super().__init__(context, options)
        D = context.shape.width
        self.hidden = weight((D, D), ("width", None), fan_in=D)

    def scores(self, x_BTD):
        return super().scores(jax.nn.silu(project(x_BTD.astype(jnp.float32), self.hidden)))
