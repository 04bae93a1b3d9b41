"""The mesh of one run's lane, some of its worker's devices, and their order in it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh

from harness.config.schema.cluster import MeshConfig
from harness.core.errors import UserError

AXES = ("data", "fsdp", "tensor", "expert")
"""Axes of every mesh. A mesh that splits sequences has `context` too, one that splits layers `pipeline`."""
ALL_AXES = ("pipeline", "data", "fsdp", "context", "tensor", "expert")
"""Axes that a mesh may have, in their order."""
AXES_BY_TRAFFIC = ("pipeline", "data", "fsdp", "context", "expert", "tensor")
"""Mesh axes from least to most communication: outer ones cross the slow links between slices or hosts."""


def mesh_axes(config: MeshConfig) -> tuple[str, ...]:
    """Return the names of the axes. `context` and `pipeline` are left out at size 1, so those programs do not
    change."""
    return tuple(axis for axis in ALL_AXES if axis in AXES or getattr(config, axis) > 1)


def mesh_shape(config: MeshConfig) -> tuple[int, ...]:
    """Return the number of devices along each axis."""
    return tuple(getattr(config, axis) for axis in mesh_axes(config))


def abstract_mesh(config: MeshConfig) -> AbstractMesh:
    """Return a lane's mesh without devices."""
    axes = mesh_axes(config)
    return AbstractMesh(mesh_shape(config), axes, axis_types=(AxisType.Explicit,) * len(axes))


def lane_mesh(devices: Sequence[object], config: MeshConfig) -> Mesh:
    """Return the mesh over exactly these devices, ordered by `order_devices`.

    Raises UserError if the sizes of the axes do not multiply to the number of devices.
    """
    shape, axes = mesh_shape(config), mesh_axes(config)
    if min(shape) < 1 or config.devices != len(devices):
        raise UserError(
            f"{' x '.join(f'mesh.{axis}' for axis in axes)} = {' x '.join(map(str, shape))} needs"
            f" {config.devices} devices, but the lane has {len(devices)}."
            " Change the mesh or the number of devices."
        )
    grid = order_devices(devices, dict(zip(axes, shape, strict=True)))
    return Mesh(grid, axes, axis_types=(AxisType.Explicit,) * len(axes))


def order_devices(devices: Sequence[Any], sizes: Mapping[str, int]) -> np.ndarray:
    """Return the devices as a mesh with axes of these sizes.

    Each axis, in the order of `AXES_BY_TRAFFIC`, spans as many of the remaining slices or hosts as divide it;
    the rest of it stays within one. Devices keep their order on CPUs, on a single slice or host, and where
    slices or hosts hold unequal numbers.
    """
    groups = _group_by_slice(devices)
    if len(groups) < 2 or len({len(group) for group in groups.values()}) > 1:
        return np.asarray(devices, dtype=object).reshape(tuple(sizes.values()))
    axes = [axis for axis in AXES_BY_TRAFFIC if axis in sizes]
    outer = _slices_per_axis([sizes[axis] for axis in axes], len(groups))
    inner = [sizes[axis] // slow for axis, slow in zip(axes, outer, strict=True)]
    by_process = getattr(devices[0], "slice_index", None) is None
    grid = mesh_utils.create_hybrid_device_mesh(inner, outer, devices, process_is_granule=by_process)
    return grid.transpose([axes.index(axis) for axis in sizes])


def _group_by_slice(devices: Sequence[Any]) -> dict[int, list[Any]]:
    """Group accelerators by slice if their platform names slices, else by process."""
    devices_by_slice: dict[int, list[Any]] = {}
    for device in devices:
        if device.platform != "cpu":
            slice_index = getattr(device, "slice_index", None)
            group = device.process_index if slice_index is None else slice_index
            devices_by_slice.setdefault(group, []).append(device)
    return devices_by_slice


def _slices_per_axis(sizes: Sequence[int], slices: int) -> list[int]:
    """Return the number of slices that each axis spans; all are used, as they divide the sizes' product."""
    outer = []
    for size in sizes:
        outer.append(math.gcd(size, slices))
        slices //= outer[-1]
    return outer
