"""Adaptive norms that start at nothing (adaLN-Zero of DiT, arXiv:2212.09748, section 3.2).

One product makes of time and label a shift and a scale for what enters each branch, and a gate for what
leaves it. It starts at zero, hence so does every branch: a layer starts as the identity. As published but for
the kind of norm (root mean square, as everywhere here) and without a bias. What starts at zero is not
decayed.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from harness.models.diffusion.conditioning.base import Conditioning, Way, ways_at
from harness.models.layers import project
from harness.models.mechanism import Products, Site
from harness.models.parameters import zeros
from harness.models.registry import conditioning


@dataclass(frozen=True)
class Options:
    """None to choose."""


def parts_at(site: Site) -> int:
    """Shift, scale and gate of both branches; shift and scale ahead of the head."""
    return 3 * ways_at(site) if ways_at(site) > 1 else 2


def _product(site: Site) -> float:
    """Once an image: a patch's share of it."""
    return 2.0 * parts_at(site) * site.shape.width**2 / site.sequence_length


@conditioning(
    "adaptive_norm",
    Options,
    model_flops=lambda site, options: _product(site),
    executed_flops=lambda site, options: Products(weights=_product(site)),
)
class AdaptiveNorm(Conditioning):
    gated = True

    def __init__(self, site: Site, options: Options):
        self.parts, self.epsilon = parts_at(site), site.norm_epsilon
        D = site.shape.width
        self.modulation = zeros((D, self.parts, D), ("width", None, None))

    def __call__(self, condition_B1D: Array) -> list[Way]:
        made_B1JD = project(jax.nn.silu(condition_B1D), self.modulation)
        parts = [made_B1JD[:, :, part] for part in range(self.parts)]
        if self.parts == 2:
            return [self._way(parts[0], parts[1], None)]
        return [self._way(*parts[start : start + 3]) for start in range(0, self.parts, 3)]

    def _way(self, shift_B1D: Array, scale_B1D: Array, gate_B1D: Array | None) -> Way:
        return Way(
            enter=lambda x_BTD: self._norm(x_BTD) * (1 + scale_B1D) + shift_B1D,
            leave=lambda y_BTD: y_BTD if gate_B1D is None else gate_B1D * y_BTD,
        )

    def _norm(self, x_BTD: Array) -> Array:
        """Without a gain of its own."""
        wide = x_BTD.astype(jnp.float32)
        scale = jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + self.epsilon)
        return (wide * scale).astype(x_BTD.dtype)
