"""mHC: hyper-connections whose mixing matrix is doubly stochastic, from z = n(flat H), made of each token."""

import jax
import jax.numpy as jnp
from flax import nnx

from harness.extend import constant, gather_weight, project, register_block, weight, zeros

LANES, ROUNDS = 4, 20


class Lanes(nnx.Module):
    def __init__(self, context, options):
        pass

    def open(self, x_BTD):
        return jnp.stack([x_BTD] * LANES, axis=2)

    def close(self, h_BTnD):
        return jnp.sum(h_BTnD, axis=2)


def doubly_stochastic(logit_BTnn):
    """Divide columns and rows by their sums in turn (Sinkhorn)."""

    def divide(mix_BTnn, _):
        mix_BTnn = mix_BTnn / jnp.sum(mix_BTnn, axis=-2, keepdims=True)
        return mix_BTnn / jnp.sum(mix_BTnn, axis=-1, keepdims=True), None

    return jax.lax.scan(divide, jax.nn.softmax(logit_BTnn, axis=-1), length=ROUNDS)[0]


class Connection(nnx.Module):
    def __init__(self, context, mixes):
        D, C = context.shape.width, 2 * LANES + mixes
        self.maps = weight((LANES, D, C), (None, "width", None), fan_in=LANES * D)
        self.scale, self.bias = constant(3, None, 0.01), zeros((C,), (None,))
        self.norm, self.epsilon = context.norm(D), context.norm_epsilon

    def __call__(self, h_BTnD, branch, mixing):
        wide = h_BTnD.astype(jnp.float32)
        square = jnp.mean(jnp.square(wide), axis=(-2, -1), keepdims=True)
        z_BTnD = (wide * jax.lax.rsqrt(square + self.epsilon)).astype(h_BTnD.dtype)
        c_BTC = project(z_BTnD, self.maps).astype(jnp.float32)
        bias_C, scales = gather_weight(self.bias, c_BTC.dtype), gather_weight(self.scale, c_BTC.dtype)
        parts = zip(
            scales, *(jnp.split(c, [LANES, 2 * LANES], axis=-1) for c in (c_BTC, bias_C)), strict=True
        )
        read_BTn, write_BTn, mix_BTC = (scale * c + bias for scale, c, bias in parts)
        mix_BTnn = mixing(mix_BTC).astype(h_BTnD.dtype)
        read_BTn, write_BTn = (jax.nn.sigmoid(c).astype(h_BTnD.dtype) for c in (read_BTn, write_BTn))
        y_BTD = branch(self.norm(jnp.sum(read_BTn[..., None] * h_BTnD, axis=2)))
        mixed_BTnD = jnp.sum(mix_BTnn[..., None] * h_BTnD[:, :, :, None], axis=2)
        return mixed_BTnD + 2 * write_BTn[..., None] * y_BTD[:, :, None]


def by_sinkhorn(mix_BTC):
    return doubly_stochastic(mix_BTC.reshape(*mix_BTC.shape[:2], LANES, LANES))


@register_block("manifold_hyper_connections", stream=Lanes, scans=True)
class ManifoldHyperConnections(nnx.Module):
    mixes, mixing = LANES**2, staticmethod(by_sinkhorn)

    def __init__(self, context, options):
        self.attention_connection = Connection(context, self.mixes)
        self.feedforward_connection = Connection(context, self.mixes)

    def __call__(self, h_BTnD, attend, feed):
        h_BTnD = self.attention_connection(h_BTnD, attend, self.mixing)
        return self.feedforward_connection(h_BTnD, feed, self.mixing)
