"""The gate's own gradient is that of silu(gate) * up."""

import jax
import jax.numpy as jnp
import numpy as np

from harness.models.feedforward.silu_gate import silu_gate


def test_value_and_gradient():
    gate, up, slope = np.random.default_rng(0).normal(scale=4.0, size=(3, 1000)).astype(np.float32)
    value, gradient = jax.vjp(silu_gate, jnp.asarray(gate), jnp.asarray(up))
    wide, share = gate.astype(np.float64), 1 / (1 + np.exp(-gate.astype(np.float64)))
    expected = (slope * up * share * (1 + wide * (1 - share)), slope * wide * share)
    np.testing.assert_allclose(value, wide * share * up, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(gradient(jnp.asarray(slope)), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
