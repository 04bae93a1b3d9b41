"""Where on the machine the axes of a mesh lie: the slow links between slices or hosts are the outer axes'."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax.experimental import mesh_utils

AXES_BY_TRAFFIC = ("data", "fsdp", "context", "expert", "tensor")
"""From what sends least to what sends most."""


def order_devices(devices: Sequence[Any], sizes: Mapping[str, int]) -> np.ndarray:
    """The devices of a mesh with axes of these sizes, in their order.

    Each axis, the first of `OUTWARD` first, goes over as many slices or hosts as are left and it divides
    into; what is inside of one is near. On CPUs, where one has all devices, and where they hold unequal
    numbers, the devices keep the order that they came in.
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
    """Accelerators by the slice that they are in, where their platform says so, else by their process."""
    found: dict[int, list[Any]] = {}
    for device in devices:
        if device.platform != "cpu":
            where = getattr(device, "slice_index", None)
            found.setdefault(device.process_index if where is None else where, []).append(device)
    return found


def _slices_per_axis(sizes: Sequence[int], slices: int) -> list[int]:
    """How many slices each axis goes over. All are given away, since they divide the product of the sizes."""
    outer = []
    for size in sizes:
        outer.append(math.gcd(size, slices))
        slices //= outer[-1]
    return outer
