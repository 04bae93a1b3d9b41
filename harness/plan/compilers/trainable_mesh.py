"""Mesh that a planned run is compiled on: the plan's own, or a part of it that a compiler can take."""

from __future__ import annotations

import dataclasses

from harness.config.schema.run import Config
from harness.core.errors import UserError
from harness.estimate.layouts import config_layout, divisors, with_layout
from harness.estimate.model_size import shape_from_facts
from harness.estimate.ways_to_fit import layout_memory
from harness.plan.plan_types import DescribedRun, PlannedRun


def planned_config(run: DescribedRun, planned: PlannedRun) -> Config:
    """Return a run's config with the mesh, micro-batches and remat of its plan; on this machine as it is.
    Raises UserError if no layout fits."""
    if not run.config.cluster.kinds:
        return run.config
    if planned.layout is None:
        raise UserError(planned.verdict)
    return with_layout(run.config, planned.layout)


def planned_memory(run: DescribedRun, config: Config) -> dict[str, float]:
    """Return bytes of one device by part as a plan counts them, on the mesh of such a config."""
    return layout_memory(shape_from_facts(config, run.facts, run.name), config_layout(config))


def smaller_mesh(config: Config, max_devices: int) -> tuple[Config, str]:
    """Return a config on a part of its mesh with at most `max_devices`, and a sentence on what was cut. First
    there are fewer copies and then fewer shards of the weights; each device keeps its sequences. Raises
    UserError if all other axes together are more."""
    mesh = config.mesh
    if mesh.devices <= max_devices:
        return config, ""
    unsplit = mesh.tensor * mesh.expert * mesh.context * mesh.pipeline
    if unsplit > max_devices:
        raise UserError(
            f"tensor x expert x context x pipeline = {unsplit} is more than the {max_devices} devices that"
            " are compiled for, so no part of the mesh can be compiled."
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
