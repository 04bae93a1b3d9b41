"""Optimizer step, as a pure function of (state, batch, scalars of the step)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from harness.config.schema.run import OptimizerConfig
from harness.models import Model, RouterStats
from harness.models.step_clock import StepClock
from harness.training.metrics.metric_registry import ConfiguredMetric
from harness.training.metrics.metric_values import StepRecord, step_values
from harness.training.optimizers.rounding.stored_dtypes import round_like, widen
from harness.training.optimizers.run_optimizer import RunOptimizer
from harness.training.schedules.values import Z_LOSS
from harness.training.step_inputs import StepInputs
from harness.training.trainable.trainable_model import Params, TrainableModel, split_trainable


class TrainState(NamedTuple):
    """Parameters by stored path, and the state of the optimizer."""

    params: Params
    optimizer: Any


METRICS = ("loss", "grad_norm", "expert_load", "expert_dropped")
"""Metrics of a step, in one vector so that a fetch is one transfer. The last two need experts.

`expert_load`: largest share of the assignments that one expert of one layer got, times the number of
experts (1: balanced). `expert_dropped`: share of all assignments dropped for lack of capacity.
"""

StepResult = tuple[TrainState, Float[Array, " metrics"]]
Step = Callable[[TrainState, Int[Array, "M B T1"], StepInputs], StepResult]


def make_step(
    model: Model | TrainableModel,
    config: OptimizerConfig,
    optimizer: RunOptimizer,
    trainable_paths: Collection[str] | None = None,
    z_loss: float = 0.0,
    metrics: Sequence[ConfiguredMetric] = (),
) -> Step:
    """Build the step over M micro-batches of B sequences of T+1 tokens; its gradient is their mean. Of rows
    with empty places each micro-batch counts by its targets, so that the mean is over those of the batch.

    `loss` is the pure cross-entropy in nats per token before the update, `grad_norm` the global norm before
    clipping. `trainable_paths`: parameters with a gradient and optimizer state; all others are frozen (None:
    all are trainable). `metrics`: those of the run's own, whose values follow METRICS.
    """

    def step(state: TrainState, tokens_MBT1: Int[Array, "M B T1"], inputs: StepInputs):
        trainable, frozen = split_trainable(state.params, trainable_paths)
        weight = (inputs.values or {}).get(Z_LOSS, z_loss)

        def objective(trainable: Params, tokens_BT1: Int[Array, "B T1"], clock: StepClock | None):
            return model.loss(trainable | frozen, tokens_BT1, weight, clock)

        gradient = jax.value_and_grad(objective, has_aux=True)
        descent = optimizer.at_step(inputs)
        point = descent.at(trainable, state.optimizer) if descent.at else trainable
        weight_M = _target_weights(tokens_MBT1) if model.has_empty_places else None
        (loss, router_stats), grads = _mean_gradient(gradient, point, tokens_MBT1, inputs.clock, weight_M)
        norm = optax.tree.norm(grads)
        bound = (inputs.values or {}).get("optimizer.clip_norm", config.clip_norm)
        clipped = jax.tree.map(lambda g: g * jnp.minimum(1.0, bound / (norm + 1e-9)), grads)
        wide = widen(trainable)
        updates, moments = descent.update(clipped, state.optimizer, wide, value=loss)
        new_params = jax.tree.map(jnp.add, wide, updates)
        new_params = model.update_after_step(new_params | frozen, router_stats)
        params = round_like(new_params, state.params, state.optimizer)
        values = [loss, norm, *_expert_metrics(router_stats)]
        if metrics:
            sums = {path: new_params[path] - wide[path] for path in wide}
            record = StepRecord(state.params, grads, sums, moments, tokens_MBT1[0], loss)
            values += step_values(metrics, model, record).values()
        return TrainState(params, moments), jnp.stack(values)

    return step


def _target_weights(tokens_MBT1: Int[Array, "M B T1"]) -> Float[Array, " M"]:
    """Return the number of targets of each micro-batch, as a share of their mean."""
    count_M = jnp.sum(tokens_MBT1[..., 1:] >= 0, axis=(1, 2))
    return count_M * (len(count_M) / jnp.maximum(jnp.sum(count_M), 1))


def _mean_gradient(
    gradient: Callable,
    params: Params,
    tokens_MBT1: Int[Array, "M B T1"],
    clock: StepClock | None,
    weight_M: Float[Array, " M"] | None,
):
    """Compute ((loss, router stats), gradient), each the mean over sequential micro-batches, in float32. Loss
    and gradient are weighted by `weight_M`, if any."""
    count = tokens_MBT1.shape[0]

    def micro_batch(tokens_BT1, clock):
        (_, parts), grads = gradient(params, tokens_BT1, clock)
        return (parts["loss"], parts["signals"]), widen(grads)

    if count == 1:
        return micro_batch(tokens_MBT1[0], clock)
    (loss, router_stats), _ = jax.eval_shape(micro_batch, tokens_MBT1[0], clock)
    zero_outputs = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (loss, router_stats))
    zero = (zero_outputs, jax.tree.map(jnp.zeros_like, widen(params)))

    def add(total, batch):
        tokens_BT1, clock, weight = batch
        outputs = micro_batch(tokens_BT1, clock)
        if weight is not None:
            (loss, stats), grads = outputs
            outputs = (weight * loss, stats), jax.tree.map(lambda g: weight * g, grads)
        return jax.tree.map(jnp.add, total, outputs), None

    clocks_M = clock and jax.vmap(lambda index: clock._replace(microbatch=index))(jnp.arange(count))
    total, _ = jax.lax.scan(add, zero, (tokens_MBT1, clocks_M, weight_M))
    return jax.tree.map(lambda x: x / count, total)


def _expert_metrics(router_stats: Mapping[str, RouterStats]) -> list[Array]:
    """Return the last two of METRICS; an empty list without experts."""
    if not router_stats:
        return []
    loads = [jnp.max(stats.load_E) * stats.load_E.shape[-1] for stats in router_stats.values()]
    dropped = [jnp.ravel(stats.dropped) for stats in router_stats.values()]
    return [jnp.max(jnp.stack(loads)), jnp.mean(jnp.concatenate(dropped))]
