"""Models of a user's own for the tests: of images, of text in NNX and in Linen, and of rows of numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from harness.extend import ModelContext, decode_images, register_data, register_model


@dataclass(frozen=True)
class Options:
    """Sizes that the variants differ in."""

    width: int = 8
    layers: int = 1
    front: bool = False


def token_losses(logits_BTV, target_BT):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits_BTV), target_BT[..., None], axis=-1)[..., 0]


@register_model("test_mixer", Options, data=("images",), loss_unit="nats a label")
class Mixer(nnx.Module):
    """MLP-mixer (arXiv:2105.01601) that names the digit of an image."""

    def __init__(self, context: ModelContext, options: Options, rngs: nnx.Rngs):
        self.context, height = context, context.image[0]
        self.side = 7 if height % 7 == 0 else 2
        tokens, width = (height // self.side) ** 2, options.width
        self.embed = nnx.Linear(self.side**2 * context.image[2], width, rngs=rngs)
        if options.front:
            self.front = nnx.Linear(width, width, rngs=rngs)
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.tokens = nnx.Linear(tokens, tokens, rngs=rngs)
        self.channels = nnx.Linear(width, width, rngs=rngs)
        self.scale = nnx.Param(jnp.float32(1.0))
        self.head = nnx.Linear(width, context.vocabulary, rngs=rngs)

    def loss(self, rows_BR):
        images = decode_images(rows_BR, self.context)
        B, H, _, C = images.pixels_BHWC.shape
        side, grid = self.side, H // self.side
        cells = images.pixels_BHWC.reshape(B, grid, side, grid, side, C).swapaxes(2, 3)
        x_BTD = self.embed(cells.reshape(B, grid**2, side**2 * C))
        if hasattr(self, "front"):
            x_BTD = x_BTD + jax.nn.gelu(self.front(x_BTD))
        x_BTD = x_BTD + jax.nn.gelu(self.tokens(self.norm(x_BTD).swapaxes(1, 2))).swapaxes(1, 2)
        x_BTD = x_BTD + jax.nn.gelu(self.channels(x_BTD)) * self.scale[...]
        return token_losses(self.head(x_BTD.mean(axis=1)), images.label_B)


@register_model("test_rnn", Options, data=("text",), loss_unit="nats a token")
class Recurrent(nnx.Module):
    """Gated recurrent units (arXiv:1406.1078) over bytes."""

    def __init__(self, context: ModelContext, options: Options, rngs: nnx.Rngs):
        width, axes = options.width, ("vocabulary", None)
        normal = nnx.with_partitioning(nnx.initializers.normal(0.1), axes)
        self.table = nnx.Embed(context.vocabulary, width, embedding_init=normal, rngs=rngs)
        cells = (nnx.GRUCell(width, width, rngs=rngs) for _ in range(options.layers))
        self.layers = nnx.List([nnx.RNN(cell, rngs=False) for cell in cells])
        self.head = nnx.Linear(width, context.vocabulary, rngs=rngs)

    def loss(self, tokens_BT1):
        x_BTD = self.table(tokens_BT1[:, :-1])
        for layer in self.layers:
            output: Any = layer(x_BTD, initial_carry=jnp.zeros_like(x_BTD[:, 0]))
            x_BTD = x_BTD + output
        return token_losses(self.head(x_BTD), tokens_BT1[:, 1:])


class LinenTransformer(nn.Module):
    width: int
    layers: int
    vocabulary: int
    front: bool

    @nn.compact
    def __call__(self, tokens_BT):
        x_BTD = nn.Embed(self.vocabulary, self.width, name="table")(tokens_BT)
        if self.front:
            x_BTD = nn.Dense(self.width, name="before")(x_BTD)
        mask = nn.make_causal_mask(tokens_BT)
        for layer in range(self.layers):
            attention = nn.MultiHeadDotProductAttention(2, name=f"attention_{layer}")
            x_BTD = x_BTD + attention(nn.LayerNorm(name=f"norm_{layer}")(x_BTD), mask=mask)
            hidden = nn.gelu(nn.Dense(2 * self.width, name=f"up_{layer}")(x_BTD))
            x_BTD = x_BTD + nn.Dense(self.width, name=f"down_{layer}")(hidden)
        return nn.Dense(self.vocabulary, name="head")(x_BTD)


@register_model("test_linen", Options, data=("text",), loss_unit="nats a token")
class Linen(nnx.Module):
    """A transformer in Linen, through Flax's bridge."""

    def __init__(self, context: ModelContext, options: Options, rngs: nnx.Rngs):
        net = LinenTransformer(options.width, options.layers, context.vocabulary, options.front)
        self.net = nnx.bridge.ToNNX(net, rngs=rngs).lazy_init(jnp.zeros((1, 4), jnp.int32))

    def loss(self, tokens_BT1):
        return token_losses(self.net(tokens_BT1[:, :-1]), tokens_BT1[:, 1:])


@register_data("test_waves")
class Waves:
    """Pairs of numbers x and sin 2x."""

    def __init__(self, sequence_length: int, options):
        self.size = 4

    def batch(self, seed, step, batch):
        x_BD = np.random.default_rng([seed, step]).normal(size=(batch, self.size)).astype(np.float32)
        return np.stack([x_BD, np.sin(2 * x_BD)], axis=1)

    def heldout(self, count):
        return self.batch(10**6, 0, count)


@register_model("test_curve", Options, data=("test_waves",), loss_unit="squared error a value")
class Curve(nnx.Module):
    """A perceptron whose inputs are noisy in training."""

    def __init__(self, context: ModelContext, options: Options, rngs: nnx.Rngs):
        self.up = nnx.Linear(context.row[-1], options.width, rngs=rngs)
        self.down = nnx.Linear(options.width, context.row[-1], rngs=rngs)

    def loss(self, rows_B2D, key):
        x_BD = rows_B2D[:, 0]
        if key is not None:
            x_BD = x_BD + 0.1 * jax.random.normal(key, x_BD.shape)
        return jnp.mean((self.down(jnp.tanh(self.up(x_BD))) - rows_B2D[:, 1]) ** 2, axis=-1)
