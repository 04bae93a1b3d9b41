"""One optimizer step, as a pure function of (state, batch, learning rate)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from harness.config.schema.run import OptimizerConfig
from harness.models import Model, Signals
from harness.training.trainable.trainable_model import Params, split

if TYPE_CHECKING:
    from harness.training.trainable.trainable_model import Learner


class TrainState(NamedTuple):
    params: Params
    optimizer: Any


METRICS = ("loss", "grad_norm", "expert_load", "expert_dropped")
"""What a step reports, as one vector, so that a fetch is one transfer; the last two of experts alone.

`expert_load`: the largest share of assignments that one expert of one layer got, times the number of
experts: 1 is balanced. `expert_dropped`: share of all assignments that no expert had room for.
"""

Step = Callable[
    [TrainState, Int[Array, "M B T1"], Float[Array, ""]],
    tuple[TrainState, Float[Array, " metrics"]],
]


def make_step(
    model: Model | Learner,
    config: OptimizerConfig,
    optimizer: optax.GradientTransformation,
    learning: Collection[str] | None = None,
) -> Step:
    """The step over M micro-batches of B sequences of T+1 tokens; its gradient is that of their mean.

    `loss` is the pure cross-entropy in nats a token before the update, `grad_norm` the global
    norm before clipping. `learning`: paths of the parameters that have a gradient and a place in the
    optimizer's state; the others rest. None: all learn.
    """

    def step(state: TrainState, tokens_MBT1: Int[Array, "M B T1"], learning_rate: Float[Array, ""]):
        moving, resting = split(state.params, learning)

        def objective(moving: Params, tokens_BT1: Int[Array, "B T1"]):
            return model.loss(moving | resting, tokens_BT1, config.z_loss)

        gradient = jax.value_and_grad(objective, has_aux=True)
        (loss, signals), grads = _mean_gradient(gradient, moving, tokens_MBT1)
        norm = optax.tree.norm(grads)
        clipped = jax.tree.map(lambda g: g * jnp.minimum(1.0, config.clip_norm / (norm + 1e-9)), grads)
        updates, moments = optimizer.update(clipped, state.optimizer, moving)
        moved = jax.tree.map(lambda p, u: p - learning_rate * u, moving, updates)
        params = model.after_step(moved | resting, signals)
        return TrainState(params, moments), jnp.stack([loss, norm, *_expert_metrics(signals)])

    return step


def _mean_gradient(gradient: Callable, params: Params, tokens_MBT1: Int[Array, "M B T1"]):
    """((loss, signals), gradient), the means over the micro-batches, one after the other."""
    count = tokens_MBT1.shape[0]

    def one(tokens_BT1):
        (_, parts), grads = gradient(params, tokens_BT1)
        return (parts["loss"], parts["signals"]), grads

    if count == 1:
        return one(tokens_MBT1[0])
    (loss, signals), _ = jax.eval_shape(one, tokens_MBT1[0])
    told = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (loss, signals))
    zero = (told, jax.tree.map(jnp.zeros_like, params))
    total, _ = jax.lax.scan(
        lambda so_far, each: (jax.tree.map(jnp.add, so_far, one(each)), None), zero, tokens_MBT1
    )
    return jax.tree.map(lambda x: x / count, total)


def _expert_metrics(signals: Mapping[str, Signals]) -> list[Array]:
    """Load and drops of `METRICS`; nothing where no layer has experts."""
    if not signals:
        return []
    loads = [jnp.max(each.load_E) * each.load_E.shape[-1] for each in signals.values()]
    dropped = [jnp.ravel(each.dropped) for each in signals.values()]
    return [jnp.max(jnp.stack(loads)), jnp.mean(jnp.concatenate(dropped))]
