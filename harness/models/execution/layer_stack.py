"""Execution of a stack of layers: a scan over stacked parameters, in stages if the mesh has a pipeline, with
rematerialisation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
from flax import nnx

from harness.config.schema.finetune import FinetuneMethod
from harness.config.schema.run import ComputeConfig, Config, Remat
from harness.core.errors import UserError
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

LayerFunction = Callable[[Any, Any], tuple[Any, Any]]
"""A layer: maps what is carried from layer to layer, such as the residual stream [B, T, D], and an input
shared by all layers to what is carried on, and the layer's statistics (None if it has none)."""


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
    call: Callable[[Any, Any, Any, int], tuple[Any, Any]] = lambda layer, carry, shared, visit: layer(
        carry, shared
    )
    """Function that applies a layer; `visit` counts how often it was applied before."""
    order: tuple[int, ...] | None = None
    """Layer at each place; None: each once, in order."""


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
    scan, layers, obstacle = config.compute.scan_layers, spec.shape.layers, spec.scan_obstacle
    if scan and obstacle:
        raise UserError(
            f"compute.scan_layers=true repeats layers that are alike, but {obstacle}. Leave it out, or set it"
            " to false."
        )
    if scan is None:
        unrolled = config.finetune.method is FinetuneMethod.last_layers or layers < 2 * spec.period
        is_deep = layers >= SCANNED_LAYERS or config.mesh.pipeline > 1
        scan = is_deep and not unrolled and obstacle is None
    return replace(config.compute, scan_layers=scan)


def apply_layers(
    stack: LayerStack, carry: Any, rows: Any, shared_input: Callable[[Any], Any]
) -> tuple[Any, dict[str, Any]]:
    """Apply the repeats as a scan, or in stages, then the other layers. `shared_input` makes the input that
    all layers share from `rows`, arrays [B, ...] that go with the sequences. Return what the last layer
    carries on, and the statistics by stored path: stacked under a scan, and the mean over the visits of a
    layer."""
    statistics: dict[str, Any] = {}
    if stack.repeats:
        carry, stacked = _apply_repeats(stack, carry, rows, shared_input)
        statistics |= {f"repeats.{index}": stats for index, stats in enumerate(stacked)}
    context, visits = shared_input(rows), [[] for _ in stack.layers]
    for index in range(len(stack.layers)) if stack.order is None else stack.order:
        layer = _rematerialise(stack, stack.layers[index], len(visits[index]))
        carry, layer_statistics = layer(carry, context)
        visits[index].append(layer_statistics)
    statistics |= {f"layers.{index}": _mean(stats) for index, stats in enumerate(visits)}
    return _join_time(carry), {path: stats for path, stats in statistics.items() if stats is not None}


def _mean(visits: list[Any]) -> Any:
    """Return the mean statistics over the visits of a layer."""
    if len(visits) < 2:
        return visits[0] if visits else None
    return jax.tree.map(lambda *values: sum(values[1:], values[0]) / len(values), *visits)


def _apply_repeats(
    stack: LayerStack, carry: Any, rows: Any, shared_input: Callable[[Any], Any]
) -> tuple[Any, list[Any]]:
    graph, stacked = nnx.split(stack.repeats)

    def scan(stacked: nnx.State, carry: Any, rows: Any) -> tuple[Any, list[Any]]:
        context = shared_input(rows)

        def repeat(carry: Any, slices: nnx.State) -> tuple[Any, list[Any]]:
            statistics = []
            for layer in nnx.merge(graph, slices):
                carry, layer_statistics = _rematerialise(stack, layer)(carry, context)
                statistics.append(layer_statistics)
            return carry, statistics

        carry = carry if stack.remat is Remat.none else _split_time(carry)
        carry, statistics = jax.lax.scan(repeat, carry, stacked)
        return _join_time(carry), statistics

    if has_stages():
        return apply_stages(scan, stacked, carry, rows, stack.microbatches)
    return scan(stacked, carry, rows)


def _rematerialise(stack: LayerStack, layer: Any, visit: int = 0) -> LayerFunction:
    """Return the layer, with rematerialisation between inputs and outputs that `tensor` splits in time."""
    if stack.remat is Remat.none:
        return lambda carry, context: stack.call(layer, carry, context, visit)
    graph, state = nnx.split(layer)

    def plain(state: nnx.State, carry: Any, context: Any) -> tuple[Any, Any]:
        carry, statistics = stack.call(nnx.merge(graph, state), _join_time(carry), context, visit)
        return _split_time(carry), statistics

    layer_with_remat = jax.checkpoint(plain, policy=POLICIES[stack.remat])
    return lambda carry, context: layer_with_remat(state, _split_time(carry), context)


def _split_time(carry: Any) -> Any:
    return jax.tree.map(lambda x: split_time(x) if x.ndim > 2 else x, carry)


def _join_time(carry: Any) -> Any:
    return jax.tree.map(lambda x: join_time(x) if x.ndim > 2 else x, carry)
