"""The mesh of one run's lane: some of its worker's devices."""

from __future__ import annotations

from collections.abc import Sequence

from jax.sharding import AbstractMesh, AxisType, Mesh

from harness.config.schema.cluster import MeshConfig
from harness.core.errors import UserError
from harness.parallel.sharding.device_order import order_devices

AXES = ("data", "fsdp", "tensor", "expert")
"""Axes of every mesh. A mesh that splits sequences has `context` too, before `tensor`."""


def mesh_axes(config: MeshConfig) -> tuple[str, ...]:
    """Return the names of the axes. `context` is left out at size 1, so those programs do not change."""
    return AXES if config.context == 1 else ("data", "fsdp", "context", "tensor", "expert")


def mesh_shape(config: MeshConfig) -> tuple[int, ...]:
    """Return the number of devices along each axis."""
    return tuple(getattr(config, axis) for axis in mesh_axes(config))


def abstract_mesh(config: MeshConfig) -> AbstractMesh:
    """Return a lane's mesh without devices."""
    axes = mesh_axes(config)
    return AbstractMesh(mesh_shape(config), axes, axis_types=(AxisType.Explicit,) * len(axes))


def lane_mesh(devices: Sequence[object], config: MeshConfig) -> Mesh:
    """Return the mesh over exactly these devices, ordered by `device_order.order_devices`.

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
