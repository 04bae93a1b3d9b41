"""Order of the devices in a mesh: outer axes cross the slow links between slices or hosts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax.experimental import mesh_utils

AXES_BY_TRAFFIC = ("data", "fsdp", "context", "expert", "tensor")
"""Mesh axes from least to most communication."""


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
            devices_by_slice.setdefault(
                device.process_index if slice_index is None else slice_index, []
            ).append(device)
    return devices_by_slice


def _slices_per_axis(sizes: Sequence[int], slices: int) -> list[int]:
    """Return the number of slices that each axis spans. All are used, since their number divides the product
    of the sizes."""
    outer = []
    for size in sizes:
        outer.append(math.gcd(size, slices))
        slices //= outer[-1]
    return outer
