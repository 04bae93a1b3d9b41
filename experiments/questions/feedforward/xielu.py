"""xIELU: h(z) = a z^2 + z/2 above 0, c (exp(z) - 1 - z) + z/2 below; a = softplus(p), c = 1/2 + softplus(q),
learned a layer from a = c = .8; y = h(x W) V."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from harness.extend import constant, gather_weight, project, register_feedforward, weight


@register_feedforward("xielu")
class XIELU(nnx.Module):
    def __init__(self, context, options):
        D, F = context.shape.width, context.shape.ffn
        self.up = weight((D, F), ("width", "ffn"), fan_in=D)
        self.down = weight((F, D), ("ffn", "width"), fan_in=F, depth=context.shape.layers)
        self.above = constant(1, None, math.log(math.expm1(0.8)))
        self.below = constant(1, None, math.log(math.expm1(0.8 - 0.5)))

    def __call__(self, x_BTD):
        z_BTF = project(x_BTD, self.up)
        above = jax.nn.softplus(gather_weight(self.above, z_BTF.dtype))
        below = 0.5 + jax.nn.softplus(gather_weight(self.below, z_BTF.dtype))
        low_BTF = jnp.minimum(z_BTF, 0.0)
        curve_BTF = jnp.where(z_BTF > 0, above * jnp.square(z_BTF), below * (jnp.expm1(low_BTF) - low_BTF))
        return project(curve_BTF + 0.5 * z_BTF, self.down)
