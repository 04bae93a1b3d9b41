"""Conditioning by two extra tokens, time and label, before the patches (DiT, arXiv:2212.09748, section 3.2).

The layers are plain and learn to attend to these tokens, which cost as much as two more patches.
"""

from __future__ import annotations

from flax import nnx
from jax import Array

from harness.config.socket_registry import NoOptions
from harness.models.diffusion.conditioning.base import BranchModulation, Conditioning, num_branches
from harness.models.layers import RMSNorm
from harness.models.mechanism import LayerContext, MatmulFlops
from harness.models.registry import register_conditioning


@register_conditioning(
    "in_context",
    NoOptions,
    model_flops=lambda context, options: 0.0,
    executed_flops=lambda context, options: MatmulFlops(),
)
class InContext(Conditioning):
    """Norms of the branches; the condition enters as tokens."""

    extra = 2

    def __init__(self, context: LayerContext, options: NoOptions):
        self.norms = nnx.List(
            RMSNorm(context.shape.width, context.norm_epsilon) for _ in range(num_branches(context))
        )

    def __call__(self, condition_B1D: Array) -> list[BranchModulation]:
        """Return the norm of each branch. The condition [B, 1, D] is not read."""
        return [BranchModulation(pre=norm, post=lambda y_BTD: y_BTD) for norm in self.norms]
