"""Bidirectional attention between all patches: no mask and no rotation, since positions are added to the
patches."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from harness.models.layers import RMSNorm, project
from harness.models.mechanism import LayerContext, MatmulFlops
from harness.models.parameters import weight


class FullAttention(nnx.Module):
    """Multi-head attention of every patch to every patch."""

    def __init__(self, context: LayerContext):
        D, H, K = context.shape.width, context.shape.heads, context.shape.head_width
        self.query, self.key, self.value = (
            weight((D, H, K), ("width", "heads", None), fan_in=D) for _ in range(3)
        )
        self.output = weight((H, K, D), ("heads", None, "width"), fan_in=H * K, depth=context.shape.layers)
        norm = (lambda: RMSNorm(K, context.norm_epsilon, None)) if context.qk_norm else (lambda: None)
        self.query_norm, self.key_norm = norm(), norm()

    def __call__(self, x_BTD: Array) -> Array:
        query_BHTK = self._normed(project(x_BTD, self.query), self.query_norm).swapaxes(1, 2)
        key_BHSK = self._normed(project(x_BTD, self.key), self.key_norm).swapaxes(1, 2)
        value_BHSK = project(x_BTD, self.value).swapaxes(1, 2)
        score_BHTS = jnp.einsum("bhtk,bhsk->bhts", query_BHTK, key_BHSK, preferred_element_type=jnp.float32)
        weight_BHTS = jax.nn.softmax(score_BHTS / math.sqrt(query_BHTK.shape[-1]), axis=-1)
        mixed_BHTK = jnp.einsum("bhts,bhsk->bhtk", weight_BHTS.astype(value_BHSK.dtype), value_BHSK)
        return project(mixed_BHTK.swapaxes(1, 2), self.output)

    def _normed(self, x_BTHK: Array, norm: RMSNorm | None) -> Array:
        return norm(x_BTHK) if norm else x_BTHK


def attention_flops(context: LayerContext, tokens: int) -> MatmulFlops:
    """Return the FLOPs per token of the forward pass, for images of `tokens` tokens."""
    inner = context.shape.heads * context.shape.head_width
    return MatmulFlops(weights=8.0 * context.shape.width * inner, activations=4.0 * inner * tokens)
