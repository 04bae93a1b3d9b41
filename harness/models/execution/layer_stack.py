"""Execution of a stack of layers: a scan over stacked parameters, in stages if the mesh has a pipeline, with
rematerialisation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
from flax import nnx
from jax import Array

from harness.config.schema.run import ComputeConfig, Config, FinetuneMethod, Remat
from harness.models.execution.pipeline import apply_stages
from harness.models.model_spec import ModelSpec
from harness.models.parameters import Stacking
from harness.parallel.sharding.split_time import join_time, split_time
from harness.parallel.sharding.stages import has_stages

POLICIES = {
    Remat.dots: jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    Remat.full: jax.checkpoint_policies.nothing_saveable,
}
"""Checkpoint policies. `dots` saves products with weights and recomputes those between activations."""

SCANNED_LAYERS = 12
"""Number of layers from which on a model is scanned unless its config says how. Unrolled, a step of 12 layers
takes 1.5 times as long to compile as a scanned one, one of 24 layers 2.6 times (tests.bench.depth); with few
layers it runs faster on a CPU."""

LayerFunction = Callable[[Array, Any], tuple[Array, Any]]
"""A layer: maps the residual stream [B, T, D] and an input shared by all layers to the new residual stream
and the layer's statistics (None if it has none)."""


@dataclass(frozen=True)
class LayerStack:
    """Layers of a model, and how they are applied."""

    repeats: nnx.List
    """Layers of one period with stacked parameters; none without a scan."""
    layers: nnx.List
    """All other layers, which come after them."""
    remat: Remat
    microbatches: int = 1
    """Micro-batches that a pipeline splits its rows into, where the mesh has one."""


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
    scanned, and those in stages of a pipeline. A run that trains its last layers alone needs layers of their
    own."""
    scan, layers = config.compute.scan_layers, spec.shape.layers
    if scan is None:
        unrolled = config.finetune.method is FinetuneMethod.last_layers or layers < 2 * spec.period
        scan = (layers >= SCANNED_LAYERS or config.mesh.pipeline > 1) and not unrolled
    return replace(config.compute, scan_layers=scan)


def apply_layers(
    stack: LayerStack, x_BTD: Array, rows: Any, shared_input: Callable[[Any], Any]
) -> tuple[Array, dict[str, Any]]:
    """Apply the repeats as a scan, or in stages, then the other layers. `shared_input` makes the input that
    all layers share from `rows`, arrays [B, ...] that go with the sequences. Return the output and the
    statistics by stored path, stacked under a scan."""
    statistics: dict[str, Any] = {}
    if stack.repeats:
        x_BTD, stacked = _apply_repeats(stack, x_BTD, rows, shared_input)
        statistics |= {f"repeats.{index}": stats for index, stats in enumerate(stacked)}
    context = shared_input(rows)
    for index, layer in enumerate(stack.layers):
        x_BTD, statistics[f"layers.{index}"] = _rematerialise(layer, stack.remat)(x_BTD, context)
    return join_time(x_BTD), {path: stats for path, stats in statistics.items() if stats is not None}


def _apply_repeats(
    stack: LayerStack, x_BTD: Array, rows: Any, shared_input: Callable[[Any], Any]
) -> tuple[Array, list[Any]]:
    graph, stacked = nnx.split(stack.repeats)

    def scan(stacked: nnx.State, x_BTD: Array, rows: Any) -> tuple[Array, list[Any]]:
        context = shared_input(rows)

        def repeat(x_BTD: Array, slices: nnx.State) -> tuple[Array, list[Any]]:
            statistics = []
            for layer in nnx.merge(graph, slices):
                x_BTD, layer_statistics = _rematerialise(layer, stack.remat)(x_BTD, context)
                statistics.append(layer_statistics)
            return x_BTD, statistics

        x_BTD = x_BTD if stack.remat is Remat.none else split_time(x_BTD)
        x_BTD, statistics = jax.lax.scan(repeat, x_BTD, stacked)
        return join_time(x_BTD), statistics

    if has_stages():
        return apply_stages(scan, stacked, x_BTD, rows, stack.microbatches)
    return scan(stacked, x_BTD, rows)


def _rematerialise(layer: Any, remat: Remat) -> LayerFunction:
    """Return the layer, with rematerialisation between inputs and outputs that `tensor` splits in time."""
    if remat is Remat.none:
        return layer
    graph, state = nnx.split(layer)

    def plain(state: nnx.State, x_BTD: Array, context: Any) -> tuple[Array, Any]:
        y_BTD, statistics = nnx.merge(graph, state)(join_time(x_BTD), context)
        return split_time(y_BTD), statistics

    layer_with_remat = jax.checkpoint(plain, policy=POLICIES[remat])
    return lambda x_BTD, context: layer_with_remat(state, split_time(x_BTD), context)
