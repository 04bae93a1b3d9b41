"""Softmax attention whose queries, keys and values are convolved over the last few tokens, channel by channel
(arXiv:2512.17351, site B)."""

from __future__ import annotations

from dataclasses import dataclass

import jax
from jax import Array

from harness.core.errors import UserError
from harness.models.attention import grouped_query
from harness.models.layers import Rotary
from harness.models.mechanism import LayerContext
from harness.models.registry import register_attention
from harness.models.sequence.time_shift import ShortConvolution


@dataclass(frozen=True, kw_only=True)
class ConvolvedOptions(grouped_query.GroupedOptions):
    """Options of `convolved`."""

    taps: int = 4
    """Tokens that a convolution reads, its own among them."""
    silu: bool = False
    """Pass the convolved values through SiLU, as linear attention does."""


@register_attention(
    "convolved",
    ConvolvedOptions,
    model_flops=grouped_query.model_flops,
    executed_flops=grouped_query.executed_flops,
    cache_bytes=lambda context, options, size: (
        grouped_query.cache_bytes(context, options, size)
        + 3 * (options.taps - 1) * context.shape.heads * context.shape.head_width * size
    ),
)
class ConvolvedAttention(grouped_query.SoftmaxAttention):
    """Attention with short convolutions, which start as the identity."""

    def __init__(self, context: LayerContext, options: ConvolvedOptions):
        if not 1 <= options.taps <= context.sequence_length:
            raise UserError(
                f"model.attention.options.taps={options.taps} is outside the context."
                f" Choose 1 to data.sequence_length={context.sequence_length}; 4 is usual."
            )
        super().__init__(context, options)
        self.silu, taps = options.silu, options.taps
        self.query_convolution, self.key_convolution, self.value_convolution = (
            ShortConvolution(matrix.shape[1:], matrix.axes[1:], taps)
            for matrix in (self.query, self.key, self.value)
        )

    def project_heads(self, x_BTD: Array, rotary: Rotary) -> tuple[Array, ...]:
        """Return queries [B, T, H, K], keys and values [B, T, G, K], convolved."""
        convolutions = (self.query_convolution, self.key_convolution, self.value_convolution)
        pairs = zip(convolutions, super().project_heads(x_BTD, rotary), strict=True)
        heads = (convolve(x_BTHK, rotary.document_BT) for convolve, x_BTHK in pairs)
        return tuple(jax.nn.silu(x_BTHK) if self.silu else x_BTHK for x_BTHK in heads)
