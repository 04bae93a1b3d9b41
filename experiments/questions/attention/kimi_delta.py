"""Kimi delta attention: S = (I - b k k') Diag(exp g) S + b k v', o = S'q, a gate g for each channel of a key.
q, k, v by a convolution of 4 and SiLU, q and k of unit length; g = -5 sigmoid(exp(a) (x W W' + c)),
b = sigmoid(x w); y = N(o) sigmoid(x V V'). Token by token."""

import jax
import jax.numpy as jnp
from flax import nnx

from harness.extend import (
    RMSNorm,
    ShortConvolution,
    constant,
    gather_weight,
    project,
    recur,
    register_attention,
    weight,
    zeros,
)

RANK = 128
"""Rank of the maps to the gates, at most the width."""


@register_attention("kimi_delta")
class KimiDelta(nnx.Module):
    def __init__(self, context, options):
        D, H, K = context.shape.width, context.shape.heads, context.shape.head_width
        R, axes = min(RANK, D // 2), ("width", "heads", None)
        self.query, self.key, self.value = (weight((D, H, K), axes, fan_in=D) for _ in range(3))
        self.convolutions = nnx.List(ShortConvolution((H, K), axes[1:]) for _ in range(3))
        self.decay_down, self.gate_down = (weight((D, R), ("width", None), fan_in=D) for _ in range(2))
        self.decay_up, self.gate_up = (weight((R, H, K), (None, *axes[1:]), fan_in=R) for _ in range(2))
        self.decay_bias, self.rate = zeros((H, K), axes[1:]), constant(H, "heads", 0.0)
        self.beta = weight((D, H), ("width", "heads"), fan_in=D)
        self.norm = RMSNorm(K, context.norm_epsilon, None)
        self.output = weight((H, K, D), ("heads", None, "width"), fan_in=H * K, depth=context.shape.layers)

    def __call__(self, x_BTD, rotary):
        matrices = (self.query, self.key, self.value)
        query_BTHK, key_BTHK, value_BTHK = (
            jax.nn.silu(convolve(project(x_BTD, matrix), rotary.document_BT)).astype(jnp.float32)
            for matrix, convolve in zip(matrices, self.convolutions, strict=True)
        )
        decay_BTHK = project(project(x_BTD, self.decay_down), self.decay_up).astype(jnp.float32)
        rate_H1 = jnp.exp(gather_weight(self.rate, decay_BTHK.dtype))[:, None]
        decay_BTHK = -5 * jax.nn.sigmoid(
            rate_H1 * (decay_BTHK + gather_weight(self.decay_bias, decay_BTHK.dtype))
        )
        beta_BTH1 = jax.nn.sigmoid(project(x_BTD, self.beta).astype(jnp.float32))[..., None]
        inputs = (unit(query_BTHK), unit(key_BTHK), value_BTHK, jnp.exp(decay_BTHK), beta_BTH1)
        mixed_BTHK = recur(step, (query_BTHK.shape[-1],) * 2, rotary.document_BT, *inputs)
        gate_BTHK = jax.nn.sigmoid(project(project(x_BTD, self.gate_down), self.gate_up))
        return project(self.norm(mixed_BTHK).astype(x_BTD.dtype) * gate_BTHK, self.output)


def unit(x):
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-6)


def step(state_BHKV, query_BHK, key_BHK, value_BHV, decay_BHK, beta_BH1):
    state_BHKV = decay_BHK[..., None] * state_BHKV
    error_BHV = value_BHV - jnp.einsum("bhkv,bhk->bhv", state_BHKV, key_BHK)
    state_BHKV = state_BHKV + key_BHK[..., None] * (beta_BH1 * error_BHV)[..., None, :]
    return state_BHKV, jnp.einsum("bhkv,bhk->bhv", state_BHKV, query_BHK)
