"""Adaptive norms with zero initialisation (adaLN-Zero of DiT, arXiv:2212.09748, section 3.2).

One product of time and label yields a shift and a scale for the input of each branch, and a gate for its
output. It is initialised to zero, so every branch starts at zero and a layer starts as the identity. It
differs from the paper in the norm (root mean square, as everywhere here) and in having no bias. Weight decay
skips it, like every zero-initialised parameter.
"""

from __future__ import annotations

import jax
from jax import Array

from harness.config.socket_registry import NoOptions
from harness.models.diffusion.conditioning.base import BranchModulation, Conditioning, num_branches
from harness.models.layers import project, rms_normalise
from harness.models.mechanism import LayerContext, MatmulFlops
from harness.models.parameters import zeros
from harness.models.registry import register_conditioning


def num_vectors(context: LayerContext) -> int:
    """Count the vectors: shift, scale and gate of both branches; shift and scale before the head."""
    return 3 * num_branches(context) if num_branches(context) > 1 else 2


def _matmul_flops(context: LayerContext) -> float:
    """Return a patch's share of the product, which is computed once per image."""
    return 2.0 * num_vectors(context) * context.shape.width**2 / context.sequence_length


@register_conditioning(
    "adaptive_norm",
    NoOptions,
    model_flops=lambda context, options: _matmul_flops(context),
    executed_flops=lambda context, options: MatmulFlops(weights=_matmul_flops(context)),
)
class AdaptiveNorm(Conditioning):
    """Shift, scale and gate of every branch, projected from time and label."""

    gated = True

    def __init__(self, context: LayerContext, options: NoOptions):
        self.num_vectors, self.epsilon = num_vectors(context), context.norm_epsilon
        D = context.shape.width
        self.modulation = zeros((D, self.num_vectors, D), ("width", None, None))

    def __call__(self, condition_B1D: Array) -> list[BranchModulation]:
        """Project the condition [B, 1, D] to the shift, scale and gate of each branch, each [B, 1, D]."""
        vectors_B1JD = project(jax.nn.silu(condition_B1D), self.modulation)
        vectors = [vectors_B1JD[:, :, index] for index in range(self.num_vectors)]
        if self.num_vectors == 2:
            return [self._modulation(vectors[0], vectors[1], None)]
        return [self._modulation(*vectors[start : start + 3]) for start in range(0, self.num_vectors, 3)]

    def _modulation(self, shift_B1D: Array, scale_B1D: Array, gate_B1D: Array | None) -> BranchModulation:
        return BranchModulation(
            pre=lambda x_BTD: self._normalise(x_BTD) * (1 + scale_B1D) + shift_B1D,
            post=lambda y_BTD: y_BTD if gate_B1D is None else gate_B1D * y_BTD,
        )

    def _normalise(self, x_BTD: Array) -> Array:
        return rms_normalise(x_BTD, self.epsilon).astype(x_BTD.dtype)
