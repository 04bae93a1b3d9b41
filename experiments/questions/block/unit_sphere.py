"""nGPT: v = unit(f(x)), x = unit(x + abs(a) (v - x)); weight vectors along the width stay unit vectors."""

import math

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from harness.extend import constant, gather_weight, register_block, register_optimizer


def unit(x, axis=-1):
    square = jnp.sum(jnp.square(x.astype(jnp.float32)), axis=axis, keepdims=True)
    return (x * jax.lax.rsqrt(square + 1e-12)).astype(x.dtype)


class Sphere(nnx.Module):
    def __init__(self, context, options):
        pass

    def open(self, x_BTD):
        return unit(x_BTD)

    def close(self, x_BTD):
        return x_BTD


@register_block("unit_sphere", stream=Sphere, scans=True)
class UnitSphere(nnx.Module):
    def __init__(self, context, options):
        D = context.shape.width
        self.attention_step, self.feedforward_step = (constant(D, "width", 0.05) for _ in range(2))
        self.feedforward_scale = constant(1, None, math.sqrt(D))

    def __call__(self, x_BTD, attend, feed):
        scale = gather_weight(self.feedforward_scale, x_BTD.dtype)
        x_BTD = self.step(x_BTD, attend(x_BTD), self.attention_step)
        return self.step(x_BTD, feed(scale * x_BTD), self.feedforward_step)

    def step(self, x_BTD, y_BTD, size):
        return unit(x_BTD + jnp.abs(gather_weight(size, x_BTD.dtype)) * (unit(y_BTD) - x_BTD))


@register_optimizer("adam_on_the_sphere")
def adam_on_the_sphere(parameters, options, learning_rate):
    """Adam, after whose steps each weight vector along the width is brought back to length 1."""
    adam = parameters.descent(optax.scale_by_adam(0.9, 0.95), learning_rate)
    weights = {
        path: s.axes.index("width")
        for path, s in parameters.specs.items()
        if s.is_weight and "width" in s.axes
    }

    def update(updates, state, params=None):
        assert params is not None
        updates, state = adam.update(updates, state, params)
        kept = {
            path: unit(params[path] + updates[path], axis) - params[path] for path, axis in weights.items()
        }
        return {**updates, **kept}, state

    return optax.GradientTransformation(adam.init, update)
