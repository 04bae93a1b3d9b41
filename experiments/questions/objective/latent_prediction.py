"""Latent prediction: beside the cross-entropy, a predictor of the state k tokens later."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from harness.extend import ObjectiveLoss, cross_entropy, project, register_objective, weight


@dataclass(frozen=True)
class Options:
    ahead: int = 4
    weight: float = 0.1
    deviation: float = 0.5
    """Standard deviation of each value of a state below which it is pushed up."""


@register_objective("latent_prediction", Options)
class LatentPrediction(nnx.Module):
    def __init__(self, context, options, new_layer):
        D = context.shape.width
        self.options = options
        self.first, self.second = (weight((D, D), ("width", None), fan_in=D) for _ in range(2))

    def __call__(self, forward, tokens_BT1):
        run, ahead = forward(tokens_BT1[:, :-1]), self.options.ahead
        loss_BT = cross_entropy(run.logits_BTV, tokens_BT1[:, 1:])
        state_BTD = run.hidden_BTD
        guess_BTD = project(jax.nn.gelu(project(state_BTD[:, :-ahead], self.first)), self.second)
        later_BTD = jax.lax.stop_gradient(state_BTD[:, ahead:])
        unit = lambda x: x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-6)  # noqa: E731
        distance = 1 - jnp.mean(jnp.sum(unit(guess_BTD) * unit(later_BTD), axis=-1))
        spread_D = jnp.sqrt(jnp.var(state_BTD, axis=(0, 1)) + 1e-6)
        collapse = jnp.mean(jnp.maximum(0, self.options.deviation - spread_D))
        return ObjectiveLoss(jnp.mean(loss_BT) + self.options.weight * (distance + collapse), loss_BT)
