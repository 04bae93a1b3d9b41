"""Differential attention: y = N(softmax(q1 k1) v - c softmax(q2 k2) v) (1 - c0), H/2 heads with values of 2K;
c = exp(a.b) - exp(a'.b') + c0, vectors from N(0, .1), c0 = .8 - .6 exp(-.3 l)."""

import math

import jax.numpy as jnp
from flax import nnx

from harness.extend import (
    NO_PERIOD,
    RMSNorm,
    UserError,
    attention_scores,
    gather_weight,
    project,
    register_attention,
    softmax_weights,
    visible_keys,
    weight,
    weighted_values,
)


@register_attention("differential", period=lambda options: NO_PERIOD)
class Differential(nnx.Module):
    def __init__(self, context, options):
        D, H, K = context.shape.width, context.shape.heads, context.shape.head_width
        if H % 2:
            raise UserError(f"model.heads={H} is odd, but heads are subtracted in pairs. Choose an even one.")
        axes = ("width", "heads", None)
        self.queries = nnx.List(weight((D, H // 2, K), axes, fan_in=D) for _ in range(2))
        self.keys = nnx.List(weight((D, H // 2, K), axes, fan_in=D) for _ in range(2))
        self.value = weight((D, H // 2, 2 * K), axes, fan_in=D)
        self.output = weight(
            (H // 2, 2 * K, D), ("heads", None, "width"), fan_in=H * K, depth=context.shape.layers
        )
        self.vectors = weight((4, K), (None, None), fan_in=100)  # deviation .1
        self.base = 0.8 - 0.6 * math.exp(-0.3 * context.layer)
        self.norm = RMSNorm(2 * K, context.norm_epsilon, None)

    def __call__(self, x_BTD, rotary):
        value_BHTK = project(x_BTD, self.value).swapaxes(1, 2)
        weights = []
        for query, key in zip(self.queries, self.keys, strict=True):
            query_BHTK, key_BHTK = (rotary(project(x_BTD, w).swapaxes(1, 2)) for w in (query, key))
            weights.append(softmax_weights(attention_scores(query_BHTK, key_BHTK), visible_keys(rotary)))
        a, b, c, d = gather_weight(self.vectors, jnp.dtype(jnp.float32))
        share = jnp.exp(jnp.sum(a * b)) - jnp.exp(jnp.sum(c * d)) + self.base
        mixed_BHTK = weighted_values(weights[0] - share * weights[1], value_BHTK)
        return project(self.norm(mixed_BHTK.swapaxes(1, 2)) * (1 - self.base), self.output)
