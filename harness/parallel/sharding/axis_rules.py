"""Logical axis rules: the table from logical axes to mesh axes, and the shardings that follow from it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
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


LARGEST = "largest"
"""Axis of a parameter of a user's own model that names no axes: its largest that divides over `fsdp`."""

LOGICAL_AXIS_RULES: dict[str, str | tuple[str, ...]] = {
    "batch": ("data", "fsdp", "expert"),
    "rows": ("data", "fsdp", "expert", "pipeline"),
    "layers": "pipeline",
    "time": "context",
    "width": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "ffn": "tensor",
    "experts": "expert",
    "vocabulary": "tensor",
    LARGEST: "fsdp",
}
"""Logical axis -> mesh axes, of which a mesh may lack some. Unlisted axes (head_width) are replicated. The
batch is split over `expert` too: otherwise all but the experts would be computed once per shard of that axis.
`rows` are the sequences outside of the layers: embedding and head share them among the stages of a pipeline.
`time` is an axis of activations, which no spec names inside `sequence_parallel.shard_sequence`."""

REMEDIES = {
    "batch": "choose scale.batch as a multiple of it",
    "layers": "set model.layers to a multiple of it",
    "time": "set data.sequence_length to a multiple of it",
    "width": "set model.width to a multiple of it",
    "heads": "set model.heads to a multiple of it",
    "kv_heads": "choose model.attention.options.kv_heads as a multiple of it",
    "ffn": "set model.ffn to a multiple of it",
    "experts": "choose model.feedforward.options.experts as a multiple of it",
    "vocabulary": "set model.vocabulary_multiple to a multiple of it",
}


def partition_spec(*axes: str | None, mesh: Mesh | AbstractMesh | None = None) -> P:
    """Return the PartitionSpec of an array with these logical axes on a mesh (by default: in context)."""
    names = (mesh or jax.sharding.get_abstract_mesh()).axis_names
    return P(*(_mesh_axes(axis, names) for axis in axes))


def splitting_axes(*axes: str) -> tuple[str, ...]:
    """Return the axes of the mesh in context that split these logical axes, in order."""
    entries = [entry for entry in partition_spec(*axes) if entry]
    return tuple(name for entry in entries for name in ((entry,) if isinstance(entry, str) else entry))


def _mesh_axes(axis: str | None, names: Collection[str]) -> str | tuple[str, ...] | None:
    """Return those axes of a mesh that split a logical axis."""
    mesh_axes = LOGICAL_AXIS_RULES.get(axis or "")
    if isinstance(mesh_axes, tuple):
        return tuple(name for name in mesh_axes if name in names)
    return mesh_axes if mesh_axes in names else None


def out_sharding(*axes: str | None) -> P | None:
    """Return the `out_sharding` of an operation with these logical axes; None outside a mesh."""
    return None if jax.sharding.get_abstract_mesh().empty else partition_spec(*axes)


def reshape(x: jax.Array, shape: tuple[int, ...], *axes: str | None) -> jax.Array:
    """Reshape x to these sizes and logical axes."""
    return jnp.reshape(x, shape, out_sharding=out_sharding(*axes))


def reshape_inner(x: jax.Array, outer: int, *sizes: int) -> jax.Array:
    """Reshape all axes after the first `outer`, none of them split, to these sizes. The outer ones stay split
    as they are: JAX alone forgets it for an axis of size 1, such as a single head."""
    shape = (*x.shape[:outer], *sizes)
    if jax.sharding.get_abstract_mesh().empty:
        return x.reshape(shape)
    split = jax.typeof(x).sharding.spec[:outer]
    return jnp.reshape(x, shape, out_sharding=P(*split, *(None,) * len(sizes)))


def out_sharding_like(x: jax.Array, *axes: str | None) -> P | None:
    """Return the `out_sharding` of an operation whose first axis is split as that of x, in a layer or not,
    and whose other axes have these logical names; None outside a mesh."""
    spec = out_sharding(*axes)
    return None if spec is None else P(jax.typeof(x).sharding.spec[0], *spec)


def reshape_rows(x: jax.Array, shape: tuple[int, ...], *axes: str | None) -> jax.Array:
    """Reshape x to these sizes; its first axis stays split as it is, the others have these logical names."""
    return jnp.reshape(x, shape, out_sharding=out_sharding_like(x, *axes))


def param_shardings(mesh: Mesh | AbstractMesh, specs: Mapping[str, HasAxes]) -> dict[str, NamedSharding]:
    """Return the sharding of each parameter by path. Raises UserError if an axis does not divide."""
    for spec in specs.values():
        for axis, size in zip(spec.axes, spec.shape, strict=True):
            check_divides(mesh.shape, axis, size)
    return {path: NamedSharding(mesh, partition_spec(*spec.axes, mesh=mesh)) for path, spec in specs.items()}


def batch_sharding(mesh: Mesh | AbstractMesh, batch: int) -> NamedSharding:
    """Return the sharding of tokens [batch, time]. Raises UserError if the batch does not divide."""
    check_divides(mesh.shape, "batch", batch)
    return NamedSharding(mesh, partition_spec("rows", None, mesh=mesh))


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
    names = [name for name in ((mesh_axes,) if isinstance(mesh_axes, str) else mesh_axes) if name in devices]
    shards = math.prod(devices[name] for name in names)
    if size % shards:
        key = " x ".join(f"mesh.{name}" for name in names)
        raise UserError(
            f"{key} = {shards} does not divide {axis} = {size}: {REMEDIES[axis or '']}, or lower {key}."
        )
