"""Mesh that a planned run is lowered and compiled on. The harness trains over data, fsdp, tensor and expert
alone, so it may differ from the fastest mesh of the plan."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from harness.config.schema.cluster import MeshConfig
from harness.config.schema.run import Config
from harness.core.errors import UserError
from harness.estimate.clusters import cluster_from_config
from harness.estimate.layouts import Layout, LayoutGrid, config_layout, divisors
from harness.estimate.memory import device_memory
from harness.estimate.model_size import ModelShape, shape_from_facts
from harness.plan.layout_search import search_layouts
from harness.plan.plan_types import DescribedRun, PlannedRun

MESH_AXES = tuple(field.name for field in dataclasses.fields(MeshConfig))
"""Axes of a config's mesh."""
SEARCHED_AXES = tuple(axis for axis in MESH_AXES if axis != "context")
"""Axes of the mesh that the search may split."""


def fastest_trainable(run: DescribedRun, planned: PlannedRun) -> Config:
    """Return a run's config with the fastest mesh, micro-batches and remat that the harness can train, on at
    most the devices that the run has; on this machine as it is. Raises UserError if no mesh fits."""
    config = run.config
    if not config.cluster.kinds:
        return config
    part = cluster_from_config(config.cluster).partition(planned.kind)
    model = shape_from_facts(config, run.facts, run.name)
    devices, mask = planned.devices or planned.chips, trainable_mask(model)
    try:
        choice = search_layouts(model, devices, part.chip, part.links, mask=mask)
    except UserError as error:
        raise UserError(f"over {', '.join(SEARCHED_AXES)} alone, as the harness trains, {error}") from error
    return with_layout(config, choice.best.layout)


def trainable_mask(model: ModelShape) -> Callable[[LayoutGrid], np.ndarray]:
    """Return a mask of the layouts that the harness can train: no pipeline, no context, and each axis divides
    all that `harness.parallel.sharding.axis_rules` splits over it."""

    def mask(layouts: LayoutGrid) -> np.ndarray:
        divides = (layouts.pipeline == 1) & (layouts.context == 1) & (model.width % layouts.fsdp == 0)
        for size in (model.heads, model.kv_heads, model.ffn, model.vocabulary):
            divides &= size % layouts.tensor == 0
        return divides

    return mask


def with_layout(config: Config, layout: Layout) -> Config:
    """Return a config with a layout's mesh, micro-batches and remat."""
    mesh = MeshConfig(**{axis: getattr(layout, axis) for axis in MESH_AXES})
    parts = mesh.data * mesh.fsdp * mesh.expert
    microbatches = max(1, config.scale.batch // (parts * layout.microbatch))
    compute = dataclasses.replace(config.compute, remat=layout.remat, microbatches=microbatches)
    return dataclasses.replace(config, mesh=mesh, compute=compute)


def planned_memory(run: DescribedRun, config: Config) -> dict[str, float]:
    """Return bytes of one device by part as a plan counts them, on the mesh of such a config."""
    model = shape_from_facts(config, run.facts, run.name)
    memory = device_memory(model, LayoutGrid.from_layouts([config_layout(config)]))
    return {part.name: float(getattr(memory, part.name)[0]) for part in dataclasses.fields(memory)}


def smaller_mesh(config: Config, max_devices: int) -> tuple[Config, str]:
    """Return a config on a part of its mesh with at most `max_devices`, and a sentence on what was cut. First
    there are fewer copies and then fewer shards of the weights; each device keeps its sequences. Raises
    UserError if tensor x expert x context is more."""
    mesh = config.mesh
    if mesh.devices <= max_devices:
        return config, ""
    unsplit = mesh.tensor * mesh.expert * mesh.context
    if unsplit > max_devices:
        raise UserError(
            f"tensor x expert x context = {unsplit} is more than the {max_devices} devices that are compiled"
            " for, so no part of the mesh can be compiled."
        )
    fsdp = max(size for size in divisors(mesh.fsdp) if size * unsplit <= max_devices)
    data = max(size for size in divisors(mesh.data) if size * fsdp * unsplit <= max_devices)
    smaller = dataclasses.replace(mesh, data=data, fsdp=fsdp)
    batch = config.scale.batch * smaller.devices // mesh.devices
    scale = dataclasses.replace(config.scale, batch=batch)
    changed = [
        f"{axis} {getattr(smaller, axis)} of {getattr(mesh, axis)}"
        for axis in ("data", "fsdp")
        if getattr(smaller, axis) < getattr(mesh, axis)
    ]
    state = "; its state and gradients are more than the run's" if fsdp < mesh.fsdp else ""
    note = (
        f"compiled for {smaller.devices:,} of {mesh.devices:,} devices ({', '.join(changed)}), with as many"
        f" sequences each{state}; traffic of the other devices is not counted"
    )
    return dataclasses.replace(config, mesh=smaller, scale=scale), note
