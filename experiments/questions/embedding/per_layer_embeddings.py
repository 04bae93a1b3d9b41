"""Per-layer embeddings: after each block a gated row of the token's own table in this layer is added."""

from dataclasses import dataclass

import jax

from harness.extend import PreNorm, RMSNorm, lookup, project, register_block, weight, zeros


@dataclass(frozen=True)
class Options:
    width: int = 8
    """Values of a row (published: 256)."""


@register_block("per_layer_embeddings", Options, scans=True)
class PerLayer(PreNorm):
    def __init__(self, context, options):
        super().__init__(context, options)
        D, E = context.shape.width, options.width
        self.rows = weight((context.shape.vocabulary, E), ("vocabulary", None), fan_in=256 * E)
        self.from_embedding = weight((D, E), ("width", None), fan_in=D)
        self.gate = weight((D, E), ("width", None), fan_in=D)
        self.up = zeros((E, D), (None, "width"))
        self.row_norm = RMSNorm(E, context.norm_epsilon, None)
        self.out_norm = RMSNorm(D, context.norm_epsilon)

    def __call__(self, x_BTD, attend, feed, tokens_BT, x0_BTD):
        x_BTD = super().__call__(x_BTD, attend, feed)
        row_BTE = 16 * lookup(self.rows, tokens_BT, x_BTD.dtype)
        row_BTE = (row_BTE + self.row_norm(project(x0_BTD, self.from_embedding))) / 2**0.5
        return x_BTD + self.out_norm(project(jax.nn.gelu(project(x_BTD, self.gate)) * row_BTE, self.up))
