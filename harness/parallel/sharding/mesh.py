"""The lane of one run: a sub-mesh of the devices that a worker was given."""

from __future__ import annotations

from collections.abc import Sequence

from jax.sharding import AbstractMesh, AxisType, Mesh

from harness.config.schema.cluster import MeshConfig
from harness.core.errors import UserError
from harness.parallel.sharding.device_order import order_devices

AXES = ("data", "fsdp", "tensor", "expert")
"""Of every mesh. One whose sequences are split has `context` too, before `tensor`."""


def mesh_axes(config: MeshConfig) -> tuple[str, ...]:
    """Names of the axes. Without `context` a program is the one from before there was that axis."""
    return AXES if config.context == 1 else ("data", "fsdp", "context", "tensor", "expert")


def mesh_shape(config: MeshConfig) -> tuple[int, ...]:
    """Devices along each of `axes_of`."""
    return tuple(getattr(config, axis) for axis in mesh_axes(config))


def abstract_mesh(config: MeshConfig) -> AbstractMesh:
    """The mesh of a lane without its devices."""
    axes = mesh_axes(config)
    return AbstractMesh(mesh_shape(config), axes, axis_types=(AxisType.Explicit,) * len(axes))


def lane_mesh(devices: Sequence[object], config: MeshConfig) -> Mesh:
    """A mesh with the axes of the config over exactly these devices, laid out by `hosts.placed`.

    Raises UserError if their number is not the product of those.
    """
    shape, axes = mesh_shape(config), mesh_axes(config)
    if min(shape) < 1 or config.devices != len(devices):
        raise UserError(
            f"{' x '.join(f'mesh.{axis}' for axis in axes)} = {' x '.join(map(str, shape))} needs"
            f" {config.devices} devices, but the lane has {len(devices)}:"
            " change the mesh or the number of devices."
        )
    grid = order_devices(devices, dict(zip(axes, shape, strict=True)))
    return Mesh(grid, axes, axis_types=(AxisType.Explicit,) * len(axes))
