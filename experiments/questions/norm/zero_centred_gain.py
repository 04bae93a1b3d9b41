"""RMS norm whose gain is kept as its distance from one, which decays: y = (1 + g) x / rms x."""

import jax.numpy as jnp
from flax import nnx

from harness.extend import constant, gather_weight, register_norm, rms_normalise


@register_norm("zero_centred_gain")
class ZeroCentredGain(nnx.Module):
    """Normalisation over the last axis."""

    def __init__(self, size, axis, context, options):
        self.gain = constant(size, axis, 0.0, decays=True)
        self.epsilon = context.norm_epsilon

    def __call__(self, x):
        gain = 1 + gather_weight(self.gain, jnp.dtype(jnp.float32))
        return (gain * rms_normalise(x, self.epsilon)).astype(x.dtype)
