"""Logical axis rules: the table from logical axes to mesh axes, and the shardings that follow from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import P
from jax.sharding import AbstractMesh, Mesh, NamedSharding

from harness.core.errors import UserError


class HasAxes(Protocol):
    """An object with a shape whose axes have logical names, such as a `ParamSpec` of harness.models."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of each axis."""
        ...

    @property
    def axes(self) -> tuple[str | None, ...]:
        """Logical name of each axis; None is never split."""
        ...


LOGICAL_AXIS_RULES: dict[str, str | tuple[str, ...]] = {
    "batch": ("data", "fsdp", "expert"),
    "time": "context",
    "width": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "ffn": "tensor",
    "experts": "expert",
    "vocabulary": "tensor",
}
"""Logical axis -> mesh axes. Unlisted axes (head_width, layers) are replicated. The batch is split over
`expert` too: otherwise all but the experts would be computed once per shard of that axis. `time` is an axis
of activations, which no spec names inside `sequence_parallel.shard_sequence`."""

REMEDIES = {
    "batch": "choose scale.batch as a multiple of it",
    "time": "set data.sequence_length to a multiple of it",
    "width": "set model.width to a multiple of it",
    "heads": "set model.heads to a multiple of it",
    "kv_heads": "choose model.attention.options.kv_heads as a multiple of it",
    "ffn": "set model.ffn to a multiple of it",
    "experts": "choose model.feedforward.options.experts as a multiple of it",
    "vocabulary": "set model.vocabulary_multiple to a multiple of it",
}


def partition_spec(*axes: str | None) -> P:
    """Return the PartitionSpec of an array with these logical axes."""
    return P(*(LOGICAL_AXIS_RULES.get(axis) if axis else None for axis in axes))


def out_sharding(*axes: str | None) -> P | None:
    """Return the `out_sharding` of an operation with these logical axes; None outside a mesh."""
    return None if jax.sharding.get_abstract_mesh().empty else partition_spec(*axes)


def reshape(x: jax.Array, shape: tuple[int, ...], *axes: str | None) -> jax.Array:
    """Reshape x to these sizes and logical axes."""
    return jnp.reshape(x, shape, out_sharding=out_sharding(*axes))


def param_shardings(mesh: Mesh | AbstractMesh, specs: Mapping[str, HasAxes]) -> dict[str, NamedSharding]:
    """Return the sharding of each parameter by path. Raises UserError if an axis does not divide."""
    for spec in specs.values():
        for axis, size in zip(spec.axes, spec.shape, strict=True):
            check_divides(mesh.shape, axis, size)
    return {path: NamedSharding(mesh, partition_spec(*spec.axes)) for path, spec in specs.items()}


def batch_sharding(mesh: Mesh | AbstractMesh, batch: int) -> NamedSharding:
    """Return the sharding of tokens [batch, time]. Raises UserError if the batch does not divide."""
    check_divides(mesh.shape, "batch", batch)
    return NamedSharding(mesh, partition_spec("batch", None))


def addressable_rows(sharding: NamedSharding, shape: tuple[int, int, int]) -> np.ndarray | None:
    """Return which sequences of a batch [micro-batches, sequences, T+1] are on devices of this process, as a
    mask [micro-batches x sequences]; None if this process has all devices."""
    if sharding.is_fully_addressable:
        return None
    mine_MB = np.zeros(shape[:2], bool)
    for index in sharding.addressable_devices_indices_map(shape).values():
        assert index is not None
        mine_MB[index[:2]] = True
    return mine_MB.reshape(-1)


def check_divides(devices: Mapping[str, int], axis: str | None, size: int) -> None:
    """Raise UserError if a logical axis of this size does not divide over the mesh axes that split it."""
    mesh_axes = LOGICAL_AXIS_RULES.get(axis, ()) if axis else ()
    names = (mesh_axes,) if isinstance(mesh_axes, str) else mesh_axes
    shards = math.prod(devices[name] for name in names)
    if size % shards:
        key = " x ".join(f"mesh.{name}" for name in names)
        raise UserError(
            f"{key} = {shards} does not divide {axis} = {size}: {REMEDIES[axis or '']}, or lower {key}."
        )
