"""Columns of a run's own metrics, by a trace of shapes, which refuses what cannot be recorded."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from harness.training.metrics.metric_registry import ConfiguredMetric, MeasuredAt, configured_metrics
from harness.training.metrics.metric_values import StepRecord, row_values, step_values
from harness.training.programs.program_specs import ProgramSpecs


def step_columns(specs: ProgramSpecs) -> list[str]:
    """Return the columns of the metrics of each step. Raises UserError for one that returns no scalars."""
    metrics = configured_metrics(specs.config, MeasuredAt.step)
    if not metrics:
        return []
    gradient = {path: _float32(leaf) for path, leaf in specs.trainable_params.items()}
    fields = {
        "params": specs.params, "grads": gradient, "updates": gradient, "state": specs.state.optimizer,
        "rows_BR": specs.microbatch, "loss": specs.scalar,
    }  # fmt: skip

    def values(fields: dict[str, Any]) -> dict[str, jax.Array]:
        return step_values(metrics, specs.trainable_model, StepRecord(**fields))

    with specs.mesh_context():
        return [*jax.eval_shape(values, fields)]


def evaluation_columns(specs: ProgramSpecs) -> list[str]:
    """Return the columns of the metrics of each evaluation. Raises UserError for one that returns no value a
    row."""
    metrics = configured_metrics(specs.config, MeasuredAt.evaluation)
    if not metrics:
        return []

    def values(params: Any, rows_BR: Any) -> dict[str, jax.Array]:
        return row_values(metrics, specs.trainable_model, params, rows_BR)

    with specs.mesh_context():
        return [*jax.eval_shape(values, specs.params, specs.microbatch)]


def check_metrics(specs: ProgramSpecs) -> list[ConfiguredMetric]:
    """Return the metrics of a run. Raises UserError for one that cannot be recorded."""
    step_columns(specs)
    evaluation_columns(specs)
    return configured_metrics(specs.config)


def _float32(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, jnp.float32, sharding=leaf.sharding)
