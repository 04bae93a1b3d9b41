"""Values of metrics inside a compiled program, by the column of the curves that they are recorded in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from harness.core.errors import UserError
from harness.models import Model
from harness.models.sockets.side_inputs import asked_names
from harness.records.run.metrics import metric_column
from harness.training.metrics.metric_registry import ConfiguredMetric
from harness.training.trainable.trainable_model import Params, TrainableModel


@dataclass(frozen=True)
class StepRecord:
    """Arrays of one step."""

    params: Params
    """All parameters before the update, by stored path."""
    grads: Params
    """Mean gradient of the trainable ones, before clipping."""
    updates: Params
    """Sums that the step adds to the trainable ones."""
    state: Any
    """State of the optimizer after the update."""
    rows_BR: Int[Array, "B R"]
    """Rows of the first micro-batch; -1 at the empty places of packed ones."""
    loss: Float[Array, ""]


def step_values(
    metrics: Sequence[ConfiguredMetric], model: Model | TrainableModel, record: StepRecord
) -> dict[str, Float[Array, ""]]:
    """Return the float32 scalar of each column. Raises UserError for a metric that returns something else."""
    answers = {name: getattr(record, name) for name in record.__dataclass_fields__}
    return _values(metrics, _with_model(answers, model), (), "a scalar")


def row_values(
    metrics: Sequence[ConfiguredMetric],
    model: Model | TrainableModel,
    params: Params,
    rows_BR: Int[Array, "B R"],
) -> dict[str, Float[Array, " B"]]:
    """Return the float32 value of each row by column. Raises UserError for a metric that returns something
    else."""
    answers = _with_model({"params": params, "rows_BR": rows_BR}, model)
    return _values(metrics, answers, (rows_BR.shape[0],), "a value a row, [B]")


def _with_model(answers: Mapping[str, Any], model: Model | TrainableModel) -> dict[str, Any]:
    """Return the answers with the model, and with the weights that it computes with as `params`."""
    if isinstance(model, Model):
        return {**answers, "model": model}
    return {**answers, "params": model.merged_params(answers["params"]), "model": model.model}


def _values(
    metrics: Sequence[ConfiguredMetric], answers: Mapping[str, Any], shape: tuple[int, ...], expected: str
) -> dict[str, Array]:
    values: dict[str, Array] = {}
    for metric in metrics:
        for name, value in _results(metric, {**answers, "options": metric.options}).items():
            values[metric_column(name)] = _checked(f"metric '{name}'", value, shape, expected)
    return dict(sorted(values.items()))  # as the keys of a traced dict are


def _results(metric: ConfiguredMetric, answers: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a metric returns by its name and key. Raises UserError if it fails."""
    function = metric.entry.implementation
    arguments = {name: answers[name] for name in asked_names(function, 0) if name in answers}
    try:
        result = function(**arguments)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"metric '{metric.name}' fails ({type(error).__name__}: {error}).") from error
    if isinstance(result, Mapping):
        return {f"{metric.name}.{key}": value for key, value in result.items()}
    return {metric.name: result}


def _checked(name: str, value: Any, shape: tuple[int, ...], expected: str) -> Array:
    """Return a value in float32. Raises UserError for another shape, or for no real floating-point number."""
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError):
        kind = type(value).__name__
        raise UserError(f"{name} returns {kind}. Return {expected}, or a dict of them.") from None
    if array.shape != shape:
        raise UserError(
            f"{name} returns an array of shape {list(array.shape)}. Return {expected}, or a dict of them."
        )
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise UserError(f"{name} returns {array.dtype} values. Return floating-point ones.")
    return array.astype(jnp.float32)
