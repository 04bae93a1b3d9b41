"""Split of the residual stream between layers, in time over `tensor` (arXiv:2205.05198, section 4.2.2).

Within a layer each device of that axis computes all tokens for its heads and hidden values. What
rematerialisation keeps of a layer is its input, which would lie whole on each of them. Split, it takes a part
of the memory. A sum over the devices becomes a sum that leaves each its part, and a gather, which together
send as much; the backward pass gathers the input once more.
"""

from __future__ import annotations

import jax
from jax import Array, P

from harness.parallel.sharding.sequence_parallel import num_shards

TENSOR_AXIS = "tensor"


def split_time(x_BTD: Array) -> Array:
    """Split the time axis over `tensor`, if that divides it and `context` does not split it."""
    mesh = jax.sharding.get_abstract_mesh()
    size = 1 if mesh.empty else dict(mesh.shape).get(TENSOR_AXIS, 1)
    if size == 1 or x_BTD.shape[1] % size or num_shards() > 1:
        return x_BTD
    return jax.reshard(x_BTD, _with_time_axis(x_BTD, TENSOR_AXIS))


def join_time(x_BTD: Array) -> Array:
    """Undo `split_time`."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or jax.typeof(x_BTD).sharding.spec[1] != TENSOR_AXIS:
        return x_BTD
    return jax.reshard(x_BTD, _with_time_axis(x_BTD, None))


def _with_time_axis(x_BTD: Array, axis: str | None) -> P:
    batch, _, *rest = jax.typeof(x_BTD).sharding.spec
    return P(batch, axis, *rest)
