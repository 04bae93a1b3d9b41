"""Squared ReLU: y = leaky(x W)^2 V, of slope 0 below 0 unless given."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from harness.extend import LayerContext, project, register_feedforward, weight


@dataclass(frozen=True)
class Options:
    slope: float = 0.0
    """Slope below 0, before the square."""


@register_feedforward("squared_relu", Options)
class SquaredReLU(nnx.Module):
    def __init__(self, context: LayerContext, options: Options):
        D, F = context.shape.width, context.shape.ffn
        self.slope = options.slope
        self.up = weight((D, F), ("width", "ffn"), fan_in=D)
        self.down = weight((F, D), ("ffn", "width"), fan_in=F, depth=context.shape.layers)

    def __call__(self, x_BTD):
        hidden_BTF = jnp.square(jax.nn.leaky_relu(project(x_BTD, self.up), self.slope))
        return project(hidden_BTF, self.down)
