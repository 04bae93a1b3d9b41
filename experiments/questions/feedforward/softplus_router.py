"""Softplus router: s = sqrt(softplus(x W)) instead of sigmoid(x W)."""

import jax
import jax.numpy as jnp

from harness.extend import MoE, MoEOptions, project, register_experts


@register_experts("softplus_router", MoEOptions)
class SoftplusRouter(MoE):
    def scores(self, x_BTD):
        return jnp.sqrt(jax.nn.softplus(project(x_BTD.astype(jnp.float32), self.router)) + 1e-12)
