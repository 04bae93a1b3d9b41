"""Clipped SwiGLU: a = min(x G, 7); y = a sigmoid(1.702 a) (clip(x U, -7, 7) + 1) V."""

import jax
import jax.numpy as jnp

from harness.extend import SwiGLU, project, register_feedforward

LIMIT = 7.0


@register_feedforward("clipped_swiglu")
class ClippedSwiGLU(SwiGLU):
    def __call__(self, x_BTD):
        gate_BTF = jnp.minimum(project(x_BTD, self.gate), LIMIT)
        up_BTF = jnp.clip(project(x_BTD, self.up), -LIMIT, LIMIT)
        return project(gate_BTF * jax.nn.sigmoid(1.702 * gate_BTF) * (up_BTF + 1), self.down)
