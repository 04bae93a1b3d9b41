"""Softmax attention over a sequence that is sharded over devices (ring attention, arXiv:2310.01889).

Each device keeps its queries. Keys and values pass from device to device, as far as a query sees. For the
gradient they pass once more, together with their accumulated gradients. The memory of a device does not grow
with the number of shards.

Shards stay in order, so the first device has the fewest visible keys, but it computes masked ones too: all
devices take as long as the last. Scores are written out on every platform, for one block of queries at a
time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from harness.models.attention.kernels import online_softmax, softmax
from harness.models.attention.kernels.online_softmax import BackwardInputs, KVBlock, OnlineState
from harness.models.attention.kernels.softmax import causal_mask, mask_documents, query_blocks
from harness.parallel.sharding.axis_rules import reshape
from harness.parallel.sharding.sequence_parallel import SEQUENCE_AXIS, num_shards


class RingOptions(NamedTuple):
    """Static parameters of the ring: number of devices, attention window, softcap of the scores."""

    devices: int
    window: int | None
    softcap: float | None


class KVShard(NamedTuple):
    """Keys, values and document indices of one shard of the sequence, which travel around the ring."""

    key_BGTK: Array
    value_BGTK: Array
    document_BT: Array | None


class Residuals(NamedTuple):
    """Values saved for the gradient."""

    query_BGRTK: Array
    local: KVShard
    sink_GR: Array | None
    mixed_BGRTK: Array
    total_BGRT1: Array


def ring_attention(
    query_BHTK: Array,
    key_BGTK: Array,
    value_BGTK: Array,
    window: int | None,
    softcap: float | None = None,
    sink_H: Array | None = None,
    document_BT: Array | None = None,
) -> Array:
    """Compute `attend` where T is one device's shard. Call it inside
    `parallel.sharding.sequence_parallel.shard_sequence`."""
    B, H, T, _ = query_BHTK.shape
    query_BGRTK, sink_GR = softmax.group_heads(query_BHTK, key_BGTK.shape[1], sink_H)
    local = KVShard(key_BGTK, value_BGTK, document_BT)
    mixed_BGRTK = _attend(RingOptions(num_shards(), window, softcap), query_BGRTK, local, sink_GR)
    return reshape(mixed_BGRTK, (B, H, T, -1), "batch", "heads", None, None)


def _attend_primal(ring: RingOptions, query_BGRTK: Array, local: KVShard, sink_GR: Array | None) -> Array:
    return _forward(ring, query_BGRTK, local, sink_GR)[0]


_attend = jax.custom_vjp(_attend_primal, nondiff_argnums=(0,))


def _forward(
    ring: RingOptions, query_BGRTK: Array, local: KVShard, sink_GR: Array | None
) -> tuple[Array, Residuals]:
    queries = [query_BGRTK[:, :, :, start:stop] for start, stop in query_blocks(query_BGRTK.shape[3])]

    def step(hop: Array, visiting: KVShard, states: list[OnlineState]) -> list[OnlineState]:
        return list(map(online_softmax.update, states, queries, _kv_blocks(ring, hop, local, visiting)))

    states = list(map(online_softmax.init, queries, _kv_blocks(ring, None, local, local)))
    states = _rotate(ring, local, step, states)
    outputs = [
        online_softmax.finalize(state, query.shape[3], sink_GR)
        for state, query in zip(states, queries, strict=True)
    ]
    mixed_BGRTK, total_BGRT1 = (jnp.concatenate(blocks, axis=3) for blocks in zip(*outputs, strict=True))
    mixed_BGRTK = mixed_BGRTK.astype(local.value_BGTK.dtype)
    return mixed_BGRTK, Residuals(query_BGRTK, local, sink_GR, mixed_BGRTK, total_BGRT1)


def _backward(
    ring: RingOptions, residuals: Residuals, slope_BGRTK: Array
) -> tuple[Array, KVShard, Array | None]:
    product_BGRTK = residuals.mixed_BGRTK.astype(jnp.float32) * slope_BGRTK.astype(jnp.float32)
    along_BGRT1 = jnp.sum(product_BGRTK, axis=-1, keepdims=True)
    inputs = BackwardInputs(residuals.query_BGRTK, residuals.total_BGRT1, slope_BGRTK, along_BGRT1)

    def step(hop: Array, visiting: KVShard, gradient: tuple[Array, KVShard]) -> tuple[Array, KVShard]:
        arrived = gradient[0], _shift(gradient[1], ring, 1)
        return _add(arrived, _shard_gradients(ring, hop, inputs, residuals.local, visiting))

    gradient = _shard_gradients(ring, None, inputs, residuals.local, residuals.local)
    query_BGRTK, kv_gradient = _rotate(ring, residuals.local, step, gradient)
    sink_GR = None
    if residuals.sink_GR is not None:  # the gradient of the sinks, whose values are zero
        share_BGRT = jnp.exp(residuals.sink_GR[..., None] - inputs.total_BGRT1[..., 0])
        sink_GR = -jnp.sum(share_BGRT * inputs.along_BGRT1[..., 0], axis=(0, 3))
    local_kv_gradient = _shift(kv_gradient, ring, -_hops(ring, residuals.local))
    return query_BGRTK.astype(residuals.query_BGRTK.dtype), local_kv_gradient, sink_GR


_attend.defvjp(_forward, _backward)


def _rotate(ring: RingOptions, local: KVShard, step: Callable[[Array, KVShard, Any], Any], state: Any) -> Any:
    """Call `step` with hop 1, 2, ... and the shard received by then, which is passed on at the same time. It
    is a loop so that the compiler never holds several shards."""
    hops = _hops(ring, local)
    if not hops:
        return state

    def hop_step(carry: tuple[KVShard, Any], hop: Array) -> tuple[tuple[KVShard, Any], None]:
        visiting, state = carry
        # Masks depend on no token: JAX would hoist them out of a rematerialised loop and save all hops'.
        visiting, hop = jax.lax.optimization_barrier((visiting, hop))
        return (_shift(visiting, ring, 1), step(hop, visiting, state)), None

    (visiting, state), _ = jax.lax.scan(hop_step, (_shift(local, ring, 1), state), jnp.arange(1, hops))
    return step(jnp.asarray(hops), visiting, state)


def _shift(shard: KVShard, ring: RingOptions, by: int) -> KVShard:
    """Pass a shard to the device `by` places ahead on the ring. The first device never sees what the last
    sends it, which is later in the sequence."""
    if by == 0:
        return shard
    pairs = [(device, (device + by) % ring.devices) for device in range(ring.devices)]
    return jax.tree.map(lambda x: jax.lax.ppermute(x, SEQUENCE_AXIS, pairs), shard)


def _kv_blocks(ring: RingOptions, hop: Array | None, local: KVShard, visiting: KVShard) -> Iterator[KVBlock]:
    """Yield each query block's keys after `hop` hops; None: its own shard, up to the block's last key."""
    T = local.key_BGTK.shape[2]
    query_start = 0 if hop is None else jax.lax.axis_index(SEQUENCE_AXIS) * T
    key_start = 0 if hop is None else query_start - hop * T
    for start, stop in query_blocks(T):
        keys = stop if hop is None else T
        mask = causal_mask(query_start + jnp.arange(start, stop), key_start + jnp.arange(keys), ring.window)
        if local.document_BT is not None and visiting.document_BT is not None:
            mask = mask_documents(mask, local.document_BT[:, start:stop], visiting.document_BT[:, :keys])
        yield KVBlock(visiting.key_BGTK[:, :, :keys], visiting.value_BGTK[:, :, :keys], mask, ring.softcap)


def _shard_gradients(
    ring: RingOptions, hop: Array | None, inputs: BackwardInputs, local: KVShard, visiting: KVShard
) -> tuple[Array, KVShard]:
    """Return the gradients of the local queries, and of the keys and values held after `hop` hops."""
    T = local.key_BGTK.shape[2]
    queries, kv_gradients = [], []
    for (start, stop), keys in zip(query_blocks(T), _kv_blocks(ring, hop, local, visiting), strict=True):
        block = BackwardInputs(*(array[:, :, :, start:stop] for array in inputs))
        query_BGRTK, *kv_gradient = online_softmax.block_gradients(block, keys)
        queries.append(query_BGRTK)
        kv_gradients.append([jnp.pad(x, ((0, 0), (0, 0), (0, T - x.shape[2]), (0, 0))) for x in kv_gradient])
    key_BGTK, value_BGTK = functools.reduce(_add, kv_gradients)
    return jnp.concatenate(queries, axis=3), KVShard(key_BGTK, value_BGTK, None)


def _add(left: Any, right: Any) -> Any:
    return jax.tree.map(jnp.add, left, right)


def _hops(ring: RingOptions, local: KVShard) -> int:
    return num_hops(local.key_BGTK.shape[2], ring.window, ring.devices)


def num_hops(part: int, window: int | None, devices: int) -> int:
    """Return how often keys are passed on: how many shards of `part` tokens back the window reaches."""
    return devices - 1 if window is None else min(devices - 1, -(-(window - 1) // part))


def mean_computed_keys_ring(length: int, window: int | None, devices: int) -> float:
    """Return the mean number of keys per query that `ring_attention` computes: its blocks, earlier shards."""
    if devices == 1:
        return softmax.mean_computed_keys(length, window)
    part = length // devices
    within = sum((stop - start) * stop for start, stop in query_blocks(part)) / part
    return within + part * num_hops(part, window, devices)
