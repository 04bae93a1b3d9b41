"""Sparse gate: y = (gelu(relu(g - mean - 1.645 std)) * x U) V, g = x G, mean and std over the hidden values,
so that about 5 % of them are not 0."""

import jax
import jax.numpy as jnp

from harness.extend import SwiGLU, project, register_feedforward

DEVIATIONS = 1.645
"""Quantile .95 of the normal distribution."""


@register_feedforward("sparse_gate")
class SparseGate(SwiGLU):
    def __call__(self, x_BTD):
        gate_BTF = project(x_BTD, self.gate)
        mean_BT1 = jnp.mean(gate_BTF, axis=-1, keepdims=True)
        spread_BT1 = jnp.sqrt(jnp.mean(jnp.square(gate_BTF - mean_BT1), axis=-1, keepdims=True) + 1e-12)
        sparse_BTF = jax.nn.gelu(jax.nn.relu(gate_BTF - mean_BT1 - DEVIATIONS * spread_BT1))
        return project(sparse_BTF * project(x_BTD, self.up), self.down)
