"""One optimizer step, as a pure function of (state, batch, learning rate)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from harness.config.schema import OptimizerConfig
from harness.models import Model

Params = dict[str, Array]


class TrainState(NamedTuple):
    params: Params
    optimizer: Any


METRICS = ("loss", "grad_norm")
"""What a step reports, as one vector, so that a fetch is one transfer."""

Step = Callable[
    [TrainState, Int[Array, "M B T1"], Float[Array, ""]],
    tuple[TrainState, Float[Array, "metrics"]],
]


def make_step(model: Model, config: OptimizerConfig, optimizer: optax.GradientTransformation) -> Step:
    """The step over M micro-batches of B sequences of T+1 tokens; its gradient is that of their mean.

    `loss` is the pure cross-entropy in nats a token before the update, `grad_norm` the global
    norm before clipping.
    """

    def objective(params: Params, tokens_BT1: Int[Array, "B T1"]):
        return model.loss(params, tokens_BT1, config.z_loss)

    gradient = jax.value_and_grad(objective, has_aux=True)

    def step(state: TrainState, tokens_MBT1: Int[Array, "M B T1"], learning_rate: Float[Array, ""]):
        loss, grads = _mean_gradient(gradient, state.params, tokens_MBT1)
        norm = optax.tree.norm(grads)
        clipped = jax.tree.map(lambda g: g * jnp.minimum(1.0, config.clip_norm / (norm + 1e-9)), grads)
        updates, moments = optimizer.update(clipped, state.optimizer, state.params)
        params = jax.tree.map(lambda p, u: p - learning_rate * u, state.params, updates)
        return TrainState(params, moments), jnp.stack([loss, norm])

    return step


def _mean_gradient(gradient: Callable, params: Params, tokens_MBT1: Int[Array, "M B T1"]):
    """Mean loss and gradient over the micro-batches, one after the other."""
    count = tokens_MBT1.shape[0]
    if count == 1:
        (_, metrics), grads = gradient(params, tokens_MBT1[0])
        return metrics["loss"], grads

    def add(total, tokens_BT1):
        (_, metrics), grads = gradient(params, tokens_BT1)
        return jax.tree.map(jnp.add, total, (metrics["loss"], grads)), None

    zero = (jnp.zeros((), jnp.float32), jax.tree.map(jnp.zeros_like, params))
    total, _ = jax.lax.scan(add, zero, tokens_MBT1)
    return jax.tree.map(lambda x: x / count, total)
