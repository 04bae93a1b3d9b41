"""Time and label as two tokens before the patches (DiT, arXiv:2212.09748, section 3.2).

The layers are plain: they learn to look at these tokens. They cost what two more patches cost.
"""

from __future__ import annotations

from dataclasses import dataclass

from flax import nnx
from jax import Array

from harness.models.diffusion.conditioning.base import Conditioning, Way, ways_at
from harness.models.layers import RMSNorm
from harness.models.mechanism import Products, Site
from harness.models.registry import conditioning


@dataclass(frozen=True)
class Options:
    """None to choose."""


@conditioning(
    "in_context",
    Options,
    model_flops=lambda site, options: 0.0,
    executed_flops=lambda site, options: Products(),
)
class InContext(Conditioning):
    extra = 2

    def __init__(self, site: Site, options: Options):
        self.norms = nnx.List(RMSNorm(site.shape.width, site.norm_epsilon) for _ in range(ways_at(site)))

    def __call__(self, condition_B1D: Array) -> list[Way]:
        return [Way(enter=norm, leave=lambda y_BTD: y_BTD) for norm in self.norms]
