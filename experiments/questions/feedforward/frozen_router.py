"""Frozen router: scores = sigmoid(x R), R fixed, of variance 1/D, the same in each layer."""

import jax
import jax.numpy as jnp
import numpy as np

from harness.extend import MoE, MoEOptions, register_experts


@register_experts("frozen_router", MoEOptions)
class FrozenRouter(MoE):
    def __init__(self, context, options):
        super().__init__(context, options)
        self.router = None

    def scores(self, x_BTD):
        shape = (x_BTD.shape[-1], self.options.experts)
        router_DE = np.random.default_rng(0).normal(0, shape[0] ** -0.5, shape).astype(np.float32)
        return jax.nn.sigmoid(x_BTD.astype(jnp.float32) @ router_DE)
