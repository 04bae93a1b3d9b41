"""Sequence parallelism over the mesh axis `context`: each device holds one shard of every sequence.

Inside `shard_sequence` the axis is manual: per-token code is written as for a full sequence, and the compiler
shards nothing along time by itself. Elsewhere every function here is the identity.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax import Array, P

from harness.parallel.sharding.axis_rules import LOGICAL_AXIS_RULES, partition_spec
from harness.parallel.sharding.shard_map_patch import preserve_auto_shardings
from harness.parallel.sharding.stages import is_in_stage, per_device_of_stages

SEQUENCE_AXIS = "context"
assert LOGICAL_AXIS_RULES["time"] == SEQUENCE_AXIS


def shard_sequence(
    function: Callable[[Any, Array], tuple[Array, Any]], params: Any, rows_BT: Array
) -> tuple[Array, Any]:
    """Apply `function` with the time axis sharded. Return outputs [B, T, ...] and statistics averaged over
    the shards. Without a time axis in the mesh, return `function(params, rows_BT)`."""
    if SEQUENCE_AXIS not in jax.sharding.get_abstract_mesh().axis_names:
        return function(params, rows_BT)
    preserve_auto_shardings()

    def on_shard(params: Any, rows_BT: Array) -> tuple[Array, Any]:
        output_BT, statistics = function(params, rows_BT)
        return output_BT, jax.tree.map(mean_over_shards, statistics)

    sharded_function = jax.shard_map(
        on_shard,
        in_specs=(P(), P(None, SEQUENCE_AXIS)),
        out_specs=(P(None, SEQUENCE_AXIS), P()),
        axis_names={SEQUENCE_AXIS},
    )
    return sharded_function(params, jax.reshard(rows_BT, partition_spec("rows", "time")))


def num_shards() -> int:
    """Return the number of devices that share the sequence being traced."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.shape[SEQUENCE_AXIS] if SEQUENCE_AXIS in mesh.manual_axes else 1


def per_device(function: Callable, in_specs: Any, out_specs: Any, check_vma: bool = True) -> Callable:
    """Map `function` over the data of each device: the mesh axes that are not manual yet become manual.
    `check_vma`: whether JAX follows over which devices values vary."""
    mesh = jax.sharding.get_abstract_mesh()
    if is_in_stage(in_specs):
        return per_device_of_stages(function, in_specs, out_specs, check_vma)
    auto_axes = set(mesh.axis_names) - set(mesh.manual_axes)
    if mesh.manual_axes:  # JAX 0.10 gets the shapes wrong of what a map inside another keeps for its gradient
        function = jax.checkpoint(function)
    specs = {"in_specs": in_specs, "out_specs": out_specs}
    return jax.shard_map(function, **specs, axis_names=auto_axes, check_vma=check_vma)


def mark_varying(x: Array) -> Array:
    """Mark x as device-varying: gradients are summed over shards. For custom gradients and scan carries."""
    return x if num_shards() == 1 else jax.lax.pcast(x, SEQUENCE_AXIS, to="varying")


def mean_over_shards(x: Array) -> Array:
    """Return the mean over the shards, equal on all of them."""
    return x if num_shards() == 1 else jax.lax.pmean(x, SEQUENCE_AXIS)


def max_over_shards(x: Array) -> Array:
    """Return the maximum over the shards, equal on all of them."""
    return x if num_shards() == 1 else jax.lax.pmax(x, SEQUENCE_AXIS)


def all_gather_sequence(x_BT: Array) -> Array:
    """Return the full sequence [B, T, ...] on every device that shares it."""
    if num_shards() == 1:
        return x_BT
    spec = jax.typeof(x_BT).sharding.spec
    # JAX 0.10 cannot lower this gather's gradient while other axes are explicit, hence all are manual here.
    gather = per_device(lambda x_BT: jax.lax.all_gather(x_BT, SEQUENCE_AXIS, axis=1, tiled=True), spec, spec)
    return gather(x_BT)


def local_shard(x: Array, axis: int = 1) -> Array:
    """Return this device's shard of a full sequence."""
    if num_shards() == 1:
        return x
    length = x.shape[axis] // num_shards()
    return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(SEQUENCE_AXIS) * length, length, axis)
