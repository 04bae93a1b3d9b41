"""The mesh that a planned run is lowered and compiled on: the harness trains over data, fsdp, tensor and
expert alone, so it may be another than the fastest that is planned."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from harness.config.schema.cluster import MeshConfig
from harness.config.schema.run import Config
from harness.core.errors import UserError
from harness.plan.cluster.clusters import from_config
from harness.plan.cost_model.chip_efficiency import efficiency
from harness.plan.cost_model.layout_search import search
from harness.plan.cost_model.layouts import Grid, Layout, divisors
from harness.plan.cost_model.memory import memory
from harness.plan.cost_model.model_size import ModelShape, from_facts
from harness.plan.plan_types import Described, PlannedRun

MESH = tuple(field.name for field in dataclasses.fields(MeshConfig))
SEARCHED = tuple(axis for axis in MESH if axis != "context")


def on_mesh(run: Described, planned: PlannedRun) -> Config:
    """The config of a run with the fastest mesh, micro-batches and remat that the harness trains in, on at
    most the devices that it was given; on this machine as it is. Raises UserError where none fits."""
    config = run.config
    if not config.cluster.kinds:
        return config
    part = from_config(config.cluster).part(planned.kind)
    model = from_facts(config, run.facts, run.name)
    devices, share = planned.devices or planned.chips, efficiency(part.chip.name)
    try:
        found = search(model, devices, part.chip, part.links, model.recipe, share, only=trainable(model))
    except UserError as error:
        raise UserError(f"over {', '.join(SEARCHED)} alone, as the harness trains, {error}") from error
    return laid_out(config, found.best.layout)


def trainable(model: ModelShape) -> Callable[[Grid], np.ndarray]:
    """A mask of the layouts that the harness trains in: no pipeline, context only where a config asks for it,
    and each axis divides all that `harness.parallel.sharding.axis_rules` splits over it."""

    def mask(layouts: Grid) -> np.ndarray:
        whole = (layouts.pipeline == 1) & (layouts.context == 1) & (model.width % layouts.fsdp == 0)
        for size in (model.heads, model.kv_heads, model.ffn, model.vocabulary):
            whole &= size % layouts.tensor == 0
        return whole

    return mask


def laid_out(config: Config, layout: Layout) -> Config:
    """A config with a layout's mesh, micro-batches and remat."""
    mesh = MeshConfig(**{axis: getattr(layout, axis) for axis in MESH})
    parts = mesh.data * mesh.fsdp * mesh.expert
    microbatches = max(1, config.scale.batch // (parts * layout.microbatch))
    compute = dataclasses.replace(config.compute, remat=layout.remat, microbatches=microbatches)
    return dataclasses.replace(config, mesh=mesh, compute=compute)


def closed_form(run: Described, config: Config) -> dict[str, float]:
    """Bytes of one device by part, on the mesh of such a config of the run, as a plan counts them."""
    mesh, compute, batch = config.mesh, config.compute, config.scale.batch
    parts = mesh.data * mesh.fsdp * mesh.expert * compute.microbatches
    axes = {axis: getattr(mesh, axis) for axis in MESH}
    layouts = Grid.of([Layout(**axes, microbatch=max(1, batch // parts), remat=compute.remat)])
    model = from_facts(config, run.facts, run.name)
    found = memory(model, layouts, model.recipe)
    return {part.name: float(getattr(found, part.name)[0]) for part in dataclasses.fields(found)}


def cut(config: Config, most: int) -> tuple[Config, str]:
    """A config on a part of its mesh with at most so many devices, fewer copies first and then fewer parts of
    the weights, each device with as many sequences as before; and in words what was cut, if anything.

    Raises UserError where tensor and expert alone are more."""
    mesh = config.mesh
    if mesh.devices <= most:
        return config, ""
    kept = mesh.tensor * mesh.expert * mesh.context
    if kept > most:
        raise UserError(
            f"tensor x expert x context = {kept} is more than the {most} devices that are compiled for:"
            " no part of the mesh can be compiled."
        )
    fsdp = max(size for size in divisors(mesh.fsdp) if size * kept <= most)
    data = max(size for size in divisors(mesh.data) if size * fsdp * kept <= most)
    smaller = dataclasses.replace(mesh, data=data, fsdp=fsdp)
    batch = config.scale.batch * smaller.devices // mesh.devices
    scale = dataclasses.replace(config.scale, batch=batch)
    return dataclasses.replace(config, mesh=smaller, scale=scale), _told(mesh, smaller)


def _told(whole: MeshConfig, part: MeshConfig) -> str:
    changed = [
        f"{axis} {getattr(part, axis)} of {getattr(whole, axis)}"
        for axis in ("data", "fsdp")
        if getattr(part, axis) < getattr(whole, axis)
    ]
    said = f"compiled for {part.devices:,} of {whole.devices:,} devices ({', '.join(changed)})"
    more = "; its state and gradients are more than the run's" if part.fsdp < whole.fsdp else ""
    return f"{said}, with as many sequences each{more}; what the others would send is not in it"
