"""Rational softcap: z becomes c z / sqrt(z^2 + c^2)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from harness.extend import register_head


@dataclass(frozen=True)
class Options:
    bound: float = 15.0


@register_head("rational_softcap", Options)
class RationalSoftcap(nnx.Module):
    def __init__(self, context, options):
        self.bound = options.bound

    def __call__(self, x_BTD, unembed):
        logits_BTV = jnp.maximum(unembed(x_BTD), -1e9)  # rows that are no token are -inf
        return self.bound * logits_BTV * jax.lax.rsqrt(jnp.square(logits_BTV) + self.bound**2)
