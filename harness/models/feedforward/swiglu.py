"""The gated feed-forward layer (arXiv:2002.05202): down(silu(gate x) * up x)."""

from __future__ import annotations

from dataclasses import dataclass

import jax
from flax import nnx
from jax import Array

from harness.models.layers import project
from harness.models.mechanism import Products, Site
from harness.models.parameters import weight
from harness.models.registry import feedforward


@dataclass(frozen=True)
class Options:
    """None to choose."""


def _product(site: Site) -> float:
    return 2.0 * site.shape.width * site.shape.ffn


@feedforward(
    "swiglu",
    Options,
    model_flops=lambda site, options: 3 * _product(site),
    executed_flops=lambda site, options: Products(weights=2 * _product(site), final=_product(site)),
    splits=lambda site, options: True,
)
class SwiGLU(nnx.Module):
    def __init__(self, site: Site, options: Options):
        D, F = site.shape.width, site.shape.ffn
        self.gate = weight((D, F), ("width", "ffn"), fan_in=D)
        self.up = weight((D, F), ("width", "ffn"), fan_in=D)
        self.down = weight((F, D), ("ffn", "width"), fan_in=F, depth=site.shape.layers)

    def __call__(self, x_BTD: Array) -> Array:
        hidden_BTF = jax.nn.silu(project(x_BTD, self.gate)) * project(x_BTD, self.up)
        return project(hidden_BTF, self.down)
