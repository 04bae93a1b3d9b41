"""The lane of one run: a sub-mesh of the devices that a worker was given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jax.sharding import AxisType, Mesh

from harness.config.errors import UserError
from harness.config.schema import MeshConfig

AXES = ("data", "fsdp", "tensor")


def lane_mesh(devices: Sequence[object], config: MeshConfig) -> Mesh:
    """A mesh with the axes (data, fsdp, tensor) over exactly these devices, in their order.

    Raises UserError if their number is not data x fsdp x tensor.
    """
    shape = (config.data, config.fsdp, config.tensor)
    needed = config.data * config.fsdp * config.tensor
    if min(shape) < 1 or needed != len(devices):
        raise UserError(
            f"mesh.data x mesh.fsdp x mesh.tensor = {' x '.join(map(str, shape))} needs {needed} devices,"
            f" but the lane has {len(devices)}: change the mesh or the number of devices."
        )
    grid = np.asarray(devices, dtype=object).reshape(shape)
    return Mesh(grid, AXES, axis_types=(AxisType.Explicit,) * len(AXES))
