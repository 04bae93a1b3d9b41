"""The axis `context`: each device has a part of every sequence, and gets what it needs of the others'.

Inside of `in_parts` the axis is manual: what is done a token is written as for a whole sequence, and the
compiler splits nothing along time by itself. Elsewhere all of this does nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax import Array, P

from harness.parallel.sharding.axis_rules import LOGICAL_AXIS_RULES, partition_spec
from harness.parallel.sharding.shard_map_patch import preserve_auto_shardings

SEQUENCE_AXIS = "context"
assert LOGICAL_AXIS_RULES["time"] == SEQUENCE_AXIS


def shard_sequence(
    function: Callable[[Any, Array], tuple[Array, Any]], params: Any, rows_BT: Array
) -> tuple[Array, Any]:
    """(answers [B, T, ...], what is said of a batch) of rows, each device with its part of T; of what is
    said, the mean over the parts. Where no axis splits the time: `function(params, rows_BT)`."""
    if SEQUENCE_AXIS not in jax.sharding.get_abstract_mesh().axis_names:
        return function(params, rows_BT)
    preserve_auto_shardings()

    def of_part(params: Any, rows_BT: Array) -> tuple[Array, Any]:
        answer_BT, said = function(params, rows_BT)
        return answer_BT, jax.tree.map(mean_over_shards, said)

    each = jax.shard_map(
        of_part,
        in_specs=(P(), P(None, SEQUENCE_AXIS)),
        out_specs=(P(None, SEQUENCE_AXIS), P()),
        axis_names={SEQUENCE_AXIS},
    )
    return each(params, jax.reshard(rows_BT, partition_spec("batch", "time")))


def num_shards() -> int:
    """Devices that share the sequence of which this is traced."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.shape[SEQUENCE_AXIS] if SEQUENCE_AXIS in mesh.manual_axes else 1


def per_device(function: Callable, in_specs: Any, out_specs: Any) -> Callable:
    """`function` of what each device holds: those axes of the mesh are manual too that were not yet."""
    mesh = jax.sharding.get_abstract_mesh()
    free = set(mesh.axis_names) - set(mesh.manual_axes)
    if mesh.manual_axes:  # JAX 0.10 gets the shapes wrong of what a map inside another keeps for its gradient
        function = jax.checkpoint(function)
    return jax.shard_map(function, in_specs=in_specs, out_specs=out_specs, axis_names=free)


def mark_varying(x: Array) -> Array:
    """Says of x that its use differs between the parts, so that their gradients are summed: a gradient rule
    of our own and the start of a scan have to be told."""
    return x if num_shards() == 1 else jax.lax.pcast(x, SEQUENCE_AXIS, to="varying")


def mean_over_shards(x: Array) -> Array:
    """Over the parts, the same on all of them."""
    return x if num_shards() == 1 else jax.lax.pmean(x, SEQUENCE_AXIS)


def all_gather_sequence(x_BT: Array) -> Array:
    """All parts behind one another, on each of the devices that share the sequence."""
    if num_shards() == 1:
        return x_BT
    split = jax.typeof(x_BT).sharding.spec
    # JAX 0.10 cannot lower this gather's gradient while other axes are explicit, hence all are manual here.
    gather = per_device(
        lambda x_BT: jax.lax.all_gather(x_BT, SEQUENCE_AXIS, axis=1, tiled=True), split, split
    )
    return gather(x_BT)


def local_shard(x: Array, axis: int = 1) -> Array:
    """This device's part of what `whole` has together."""
    if num_shards() == 1:
        return x
    length = x.shape[axis] // num_shards()
    return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(SEQUENCE_AXIS) * length, length, axis)
