"""Layer drop: in training x + b f / (1 - q_l), b ~ Bernoulli(1 - q_l) a layer and sequence; judged whole."""

from dataclasses import dataclass

import jax

from harness.extend import PreNorm, register_block


@dataclass(frozen=True)
class Options:
    last: float = 0.1
    """Probability to drop the last layer; it rises linearly."""


@register_block("layer_drop", Options)
class LayerDrop(PreNorm):
    def __init__(self, context, options):
        super().__init__(context, options)
        self.keep = 1 - options.last * (context.layer + 1) / context.shape.layers

    def __call__(self, x_BTD, attend, feed, key):
        y_BTD = super().__call__(x_BTD, attend, feed)
        if key is None:
            return y_BTD
        kept_B11 = jax.random.bernoulli(key, self.keep, (x_BTD.shape[0], 1, 1)).astype(x_BTD.dtype)
        return x_BTD + kept_B11 / self.keep * (y_BTD - x_BTD)
