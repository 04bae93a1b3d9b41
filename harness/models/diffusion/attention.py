"""Bidirectional attention between all patches: no mask, and no rotation, since positions are added."""

from __future__ import annotations

import math

import jax
from jax import Array

from harness.models.attention.grouped_query import SoftmaxAttention
from harness.models.layers import Rotary, project
from harness.models.mechanism import LayerContext, MatmulFlops
from harness.models.norms.norm_registry import Norm
from harness.models.products.matrix_unit import multiply, multiply_transposed


class FullAttention(SoftmaxAttention):
    """Multi-head attention of every patch to every patch."""

    def __call__(self, x_BTD: Array, rotary: Rotary | None = None) -> Array:
        """Map [B, T, D] to [B, T, D], without `rotary`."""
        query_BHTK = self._normed(project(x_BTD, self.query), self.query_norm).swapaxes(1, 2)
        key_BHSK = self._normed(project(x_BTD, self.key), self.key_norm).swapaxes(1, 2)
        value_BHSK = project(x_BTD, self.value).swapaxes(1, 2)
        score_BHTS = multiply_transposed(query_BHTK, key_BHSK)
        weight_BHTS = jax.nn.softmax(score_BHTS / math.sqrt(query_BHTK.shape[-1]), axis=-1)
        mixed_BHTK = multiply(weight_BHTS, value_BHSK).astype(value_BHSK.dtype)
        return project(mixed_BHTK.swapaxes(1, 2), self.output)

    def _normed(self, x_BTHK: Array, norm: Norm | None) -> Array:
        return norm(x_BTHK) if norm else x_BTHK


def attention_flops(context: LayerContext, tokens: int) -> MatmulFlops:
    """Return the FLOPs per token of the forward pass, for images of `tokens` tokens."""
    inner = context.shape.heads * context.shape.head_width
    return MatmulFlops(weights=8.0 * context.shape.width * inner, activations=4.0 * inner * tokens)
