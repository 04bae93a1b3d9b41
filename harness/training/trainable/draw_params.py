"""Parameters of step 0, drawn from the seed straight into the layout that a run trains in.

A process draws the blocks that its devices hold, and no process ever holds a whole parameter, let alone a
whole model. The values are those of `models.parameters.init_param`, whatever the mesh.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Sharding

from harness.models import ParamSpec
from harness.models.parameters import Block, fill_blocks
from harness.training.programs.stored_executable import Device
from harness.training.trainable.trainable_model import Params, TrainableModel

GROUP_BYTES = 2**28
"""Maximum bytes on the host before they go to the devices, unless the blocks of one parameter are larger."""


@dataclass(frozen=True)
class _LocalParam:
    """Blocks of one parameter that the devices of this process hold, empty at first."""

    path: str
    spec: ParamSpec
    sharding: Sharding
    blocks: dict[Device, Block]

    @property
    def distinct_blocks(self) -> list[Block]:
        """Blocks without those that another device holds too."""
        return [*dict.fromkeys(self.blocks.values())]

    @property
    def num_bytes(self) -> int:
        """Bytes of the distinct blocks."""
        return 4 * sum(math.prod(map(len, block)) for block in self.distinct_blocks)

    def allocate(self) -> dict[Block, np.ndarray]:
        """Return an empty array for each distinct block."""
        return {block: np.empty([*map(len, block)], np.float32) for block in self.distinct_blocks}


def draw_params(
    model: TrainableModel,
    seed: int,
    shardings: Mapping[str, Sharding],
    progress: Callable[[float], None] = lambda share: None,
) -> Params:
    """Draw the parameters of these stored paths in float32, and round each to the nearest value of the dtype
    that it is kept in. `progress` receives the share that is done."""
    specs = model.stored_specs
    local_params = [_local_param(path, specs[path], sharding) for path, sharding in shardings.items()]
    params: Params = {}
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for group in _groups(local_params):
            arrays = [param.allocate() for param in group]
            jobs = [
                pool.submit(fill_blocks, seed, path, spec, blocks, targets)
                for param, values in zip(group, arrays, strict=True)
                for path, spec, blocks, targets in _layers(model, param, values)
            ]
            for job in jobs:
                job.result()
            for param, values in zip(group, arrays, strict=True):
                params[param.path] = _put(param, values, model.dtypes[param.path])
            jax.block_until_ready([params[param.path] for param in group])
            progress(len(params) / len(local_params))
    return params


def _local_param(path: str, spec: ParamSpec, sharding: Sharding) -> _LocalParam:
    indices = sharding.addressable_devices_indices_map(spec.shape)
    blocks = {
        device: tuple(range(size)[part] for part, size in zip(index or (), spec.shape, strict=True))
        for device, index in indices.items()
    }
    return _LocalParam(path, spec, sharding, blocks)


def _groups(params: Sequence[_LocalParam]) -> Iterator[list[_LocalParam]]:
    """Split parameters into groups of at most GROUP_BYTES, or of a single parameter."""
    group: list[_LocalParam] = []
    for param in params:
        if group and sum(member.num_bytes for member in group) + param.num_bytes > GROUP_BYTES:
            yield group
            group = []
        group.append(param)
    if group:
        yield group


_Layer = tuple[str, ParamSpec, list[Block], list[np.ndarray]]
"""Canonical path, spec, blocks, and the arrays that they are written into."""


def _layers(
    model: TrainableModel, param: _LocalParam, arrays: Mapping[Block, np.ndarray]
) -> Iterator[_Layer]:
    """Yield what is drawn for each canonical path that a stored one holds."""
    spec, paths = param.spec, model.canonical_paths[param.path]
    if spec.axes[:1] != ("layers",):
        yield paths[0], spec, [*arrays], [*arrays.values()]
        return
    for index, path in enumerate(paths):
        holders = {block: array for block, array in arrays.items() if index in block[0]}
        targets = [array[index - block[0].start] for block, array in holders.items()]
        yield path, model.layer_spec(param.path, path), [block[1:] for block in holders], targets


def _put(param: _LocalParam, arrays: Mapping[Block, np.ndarray], dtype: np.dtype) -> jax.Array:
    values = {block: array.astype(dtype, copy=False) for block, array in arrays.items()}
    shards = [jax.device_put(values[block], device) for device, block in param.blocks.items()]
    return jax.make_array_from_single_device_arrays(param.spec.shape, param.sharding, shards)
