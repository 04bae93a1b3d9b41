"""The lane of one run: a sub-mesh of the devices that a worker was given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jax.sharding import AxisType, Mesh

from harness.config.errors import UserError
from harness.config.schema import MeshConfig

AXES = ("data", "fsdp", "tensor", "expert")


def shape_of(config: MeshConfig) -> tuple[int, ...]:
    """Devices along each of `AXES`."""
    return tuple(getattr(config, axis) for axis in AXES)


def lane_mesh(devices: Sequence[object], config: MeshConfig) -> Mesh:
    """A mesh with the axes (data, fsdp, tensor, expert) over exactly these devices, in their order.

    Raises UserError if their number is not the product of those.
    """
    shape = shape_of(config)
    if min(shape) < 1 or config.devices != len(devices):
        raise UserError(
            f"{' x '.join(f'mesh.{axis}' for axis in AXES)} = {' x '.join(map(str, shape))} needs"
            f" {config.devices} devices, but the lane has {len(devices)}:"
            " change the mesh or the number of devices."
        )
    grid = np.asarray(devices, dtype=object).reshape(shape)
    return Mesh(grid, AXES, axis_types=(AxisType.Explicit,) * len(AXES))
