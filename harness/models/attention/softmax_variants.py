"""Variants of softmax attention: other numbers of key-value heads, a window, no positions, an output gate."""

from __future__ import annotations

from dataclasses import dataclass

import jax
from jax import Array

from harness.core.errors import UserError
from harness.models.attention import grouped_query
from harness.models.layers import RMSNorm, Rotary, project
from harness.models.mechanism import LayerContext
from harness.models.parameters import weight


@grouped_query.register_softmax("mha", grouped_query.ScoreOptions)
class MultiHeadAttention(grouped_query.SoftmaxAttention):
    """Multi-head attention (arXiv:1706.03762): every query head has its own keys and values."""


@dataclass(frozen=True, kw_only=True)
class GQAOptions(grouped_query.ScoreOptions):
    """Options of `gqa`."""

    kv_heads: int
    """Number of key-value heads."""


@grouped_query.register_softmax("gqa", GQAOptions)
class GroupedQueryAttention(grouped_query.SoftmaxAttention):
    """Grouped-query attention (arXiv:2305.13245): several query heads share one key-value head."""


@dataclass(frozen=True, kw_only=True)
class WindowOptions(grouped_query.GroupedOptions):
    """Options of `window`."""

    window: int
    """Number of keys that a query sees: its own and those just before it."""


@grouped_query.register_softmax("window", WindowOptions)
class WindowedAttention(grouped_query.SoftmaxAttention):
    """Sliding-window attention (arXiv:2004.05150); in a `pattern`, between layers that see all keys."""

    def __init__(self, context: LayerContext, options: WindowOptions):
        if not 1 <= options.window <= context.sequence_length:
            raise UserError(
                f"model.attention.options.window={options.window} is outside the context."
                f" Choose 1 to data.sequence_length={context.sequence_length}."
            )
        super().__init__(context, options)


@grouped_query.register_softmax("nope", grouped_query.GroupedOptions)
class UnpositionedAttention(grouped_query.SoftmaxAttention):
    """Attention without position embeddings (arXiv:2305.19466): only the causal mask tells the order.

    On its own it makes a model without rotary positions; in a `pattern`, it alternates with layers that have
    them.
    """

    def _rotated(self, x_BTHK: Array, norm: RMSNorm | None, rotary: Rotary) -> Array:
        x_BHTK = x_BTHK.swapaxes(1, 2)
        return norm(x_BHTK) if norm else x_BHTK


def _gate_flops(context: LayerContext) -> float:
    return 2.0 * context.shape.width * context.shape.heads * context.shape.head_width


@grouped_query.register_softmax("gated", grouped_query.GroupedOptions, _gate_flops)
class GatedAttention(grouped_query.SoftmaxAttention):
    """Attention whose head outputs are multiplied by a sigmoid gate (arXiv:2505.06708, section 2.2).

    This is the form that the paper recommends: after the product with the values, one gate per head and
    element, computed from the layer's input. Without the gate it is `gqa`.
    """

    def __init__(self, context: LayerContext, options: grouped_query.GroupedOptions):
        super().__init__(context, options)
        D, H, K = context.shape.width, context.shape.heads, context.shape.head_width
        self.gate = weight((D, H, K), ("width", "heads", None), fan_in=D)

    def attend_heads(self, x_BTD: Array, rotary: Rotary) -> Array:
        """Return the gated head outputs [B, T, H, K]."""
        return super().attend_heads(x_BTD, rotary) * jax.nn.sigmoid(project(x_BTD, self.gate))
