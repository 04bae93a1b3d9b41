"""AltUp: 4 streams of which a layer computes one; the others are predicted, and corrected by its error."""

import jax.numpy as jnp
from flax import nnx

from harness.extend import PreNorm, project, register_block, weight, zeros

STREAMS = 4


def rms(x_BTD):
    square = jnp.mean(jnp.square(x_BTD.astype(jnp.float32)), axis=-1, keepdims=True)
    return jnp.sqrt(square + 1e-6).astype(x_BTD.dtype)


class Streams(nnx.Module):
    def __init__(self, context, options):
        D = context.shape.width
        shape, axes = (D, D), ("width", None)
        self.into, self.out_of = (
            nnx.List([weight(shape, axes, fan_in=D) for _ in range(STREAMS - 1)]) for _ in range(2)
        )

    def open(self, x_BTD):
        extras = (project(x_BTD, matrix) for matrix in self.into)
        return (x_BTD, *(extra * rms(x_BTD) / rms(extra) for extra in extras))

    def close(self, streams):
        first_BTD, *extras = streams
        extras = [project(extra, matrix) for extra, matrix in zip(extras, self.out_of, strict=True)]
        return (first_BTD + sum(extra * rms(first_BTD) / rms(extra) for extra in extras)) / STREAMS


@register_block("alt_up", stream=Streams, scans=True)
class AltUp(PreNorm):
    def __init__(self, context, options):
        super().__init__(context, options)
        self.width = context.shape.width
        self.router_norm = context.norm(self.width)
        self.router = weight((self.width, STREAMS), ("width", None), fan_in=self.width)
        self.predict = zeros((STREAMS, STREAMS * STREAMS), (None, None))
        self.correct = zeros((STREAMS, STREAMS), (None, None))

    def route(self, x_BTD):
        return jnp.tanh(project(self.router_norm(x_BTD) / self.width, self.router))

    def __call__(self, streams, attend, feed):
        mix_BTC = project(self.route(streams[0]), self.predict)
        pairs = [(i, j, mix_BTC[..., STREAMS * i + j, None]) for i in range(STREAMS) for j in range(STREAMS)]
        predicted = [h + sum(c * streams[j] for i, j, c in pairs if i == k) for k, h in enumerate(streams)]
        y_BTD = super().__call__(predicted[0], attend, feed)
        share_BTn = 1 + project(self.route(y_BTD), self.correct)
        error_BTD = y_BTD - predicted[0]
        return tuple(p + share_BTn[..., i, None] * error_BTD for i, p in enumerate(predicted))
