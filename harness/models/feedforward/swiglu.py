"""The gated feed-forward layer SwiGLU (arXiv:2002.05202): down(silu(gate x) * up x)."""

from __future__ import annotations

from flax import nnx
from jax import Array

from harness.config.socket_registry import NoOptions
from harness.models.feedforward.silu_gate import silu_gate
from harness.models.layers import project
from harness.models.mechanism import LayerContext, MatmulFlops
from harness.models.parameters import weight
from harness.models.registry import register_feedforward


def matmul_flops(context: LayerContext) -> float:
    """Return the FLOPs per token of one of the three products."""
    return 2.0 * context.shape.width * context.shape.ffn


@register_feedforward(
    "swiglu",
    NoOptions,
    model_flops=lambda context, options: 3 * matmul_flops(context),
    executed_flops=lambda context, options: MatmulFlops(
        weights=2 * matmul_flops(context), final=matmul_flops(context)
    ),
    supports_sequence_parallel=lambda context, options: True,
)
class SwiGLU(nnx.Module):
    """Map [B, T, D] to [B, T, D] through a hidden layer of width `ffn`."""

    def __init__(self, context: LayerContext, options: NoOptions):
        D, F = context.shape.width, context.shape.ffn
        self.gate = weight((D, F), ("width", "ffn"), fan_in=D)
        self.up = weight((D, F), ("width", "ffn"), fan_in=D)
        self.down = weight((F, D), ("ffn", "width"), fan_in=F, depth=context.shape.layers)

    def __call__(self, x_BTD: Array) -> Array:
        """Map [B, T, D] to [B, T, D]."""
        hidden_BTF = silu_gate(project(x_BTD, self.gate), project(x_BTD, self.up))
        return project(hidden_BTF, self.down)
