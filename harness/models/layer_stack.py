"""Execution of a stack of layers: a scan over stacked parameters, with rematerialisation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
from flax import nnx
from jax import Array

from harness.config.schema.run import ComputeConfig, Config, FinetuneMethod, Remat
from harness.models.model_spec import ModelSpec
from harness.models.parameters import Stacking

POLICIES = {
    Remat.dots: jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    Remat.full: jax.checkpoint_policies.nothing_saveable,
}
"""Checkpoint policies. `dots` saves products with weights and recomputes those between activations."""

SCANNED_LAYERS = 12
"""Number of layers from which on a model is scanned unless its config says how. An unrolled step is faster to
compile below it, and takes 2.5 s of a core more for each further layer (tests.bench.depth)."""

LayerFunction = Callable[[Array, Any], tuple[Array, Any]]
"""A layer: maps the residual stream [B, T, D] and an input shared by all layers to the new residual stream
and the layer's statistics (None if it has none)."""


def build_layers(
    layer: Callable[[Any, int], nnx.Module], spec: ModelSpec, scan: bool
) -> tuple[Stacking, nnx.List, nnx.List]:
    """Return the stacking, the layers of one period that repeat (none without `scan`), and all others."""
    depth = spec.shape.layers
    stacking = Stacking(spec.period, depth // spec.period if scan else 0)
    repeats = nnx.List(layer(spec, index) for index in range(stacking.period) if stacking.repeats)
    return stacking, repeats, nnx.List(layer(spec, index) for index in range(stacking.stacked_layers, depth))


def decide_scan(config: Config, spec: ModelSpec) -> ComputeConfig:
    """Return the compute config with `scan_layers` decided: deep models whose pattern of layers repeats are
    scanned. A run that trains its last layers alone needs layers of their own."""
    scan, layers = config.compute.scan_layers, spec.shape.layers
    if scan is None:
        unrolled = config.finetune.method is FinetuneMethod.last_layers or layers < 2 * spec.period
        scan = layers >= SCANNED_LAYERS and not unrolled
    return replace(config.compute, scan_layers=scan)


def apply_layers(
    repeats: nnx.List, layers: nnx.List, x_BTD: Array, shared_input: Any, remat: Remat
) -> tuple[Array, dict[str, Any]]:
    """Apply the layers of `repeats` as a scan, then `layers`. Return the output and the layers' statistics by
    stored path, stacked under a scan."""
    statistics: dict[str, Any] = {}
    if repeats:
        x_BTD, stacked = _scan_layers(repeats, x_BTD, shared_input, remat)
        statistics |= {f"repeats.{index}": stats for index, stats in enumerate(stacked)}
    for index, layer in enumerate(layers):
        x_BTD, statistics[f"layers.{index}"] = _rematerialise(layer, remat)(x_BTD, shared_input)
    return x_BTD, {path: stats for path, stats in statistics.items() if stats is not None}


def _scan_layers(repeats: nnx.List, x_BTD: Array, context: Any, remat: Remat) -> tuple[Array, list[Any]]:
    graph, stacked = nnx.split(repeats)

    def repeat(x_BTD: Array, slices: nnx.State) -> tuple[Array, list[Any]]:
        statistics = []
        for layer in nnx.merge(graph, slices):
            x_BTD, layer_statistics = _rematerialise(layer, remat)(x_BTD, context)
            statistics.append(layer_statistics)
        return x_BTD, statistics

    return jax.lax.scan(repeat, x_BTD, stacked)


def _rematerialise(layer: Any, remat: Remat) -> LayerFunction:
    if remat is Remat.none:
        return layer
    graph, state = nnx.split(layer)
    plain = jax.checkpoint(
        lambda state, x_BTD, context: nnx.merge(graph, state)(x_BTD, context), policy=POLICIES[remat]
    )
    return lambda x_BTD, context: plain(state, x_BTD, context)
