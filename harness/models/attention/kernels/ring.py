"""Softmax attention over a sequence whose parts are on several devices (ring attention, arXiv:2310.01889).

A device keeps its queries. Keys and values go from each to the one with the next part, as far as a query
sees; for the gradient once more, and what each device adds to theirs goes with them. What a device keeps in
between is of its own part, however many there are.

Parts stay in order, so that the first device has the least to see: it multiplies what it masks, and so all
take as long as the last. The products are written out on every platform, for a block of queries at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from harness.models.attention.kernels.online_softmax import (
    BackwardInputs,
    KVBlock,
    OnlineState,
    block_gradients,
    finalize,
    init,
    update,
)
from harness.models.attention.kernels.softmax import (
    causal_mask,
    mask_documents,
    mean_computed_keys,
    query_blocks,
)
from harness.parallel.sharding.axis_rules import out_sharding
from harness.parallel.sharding.sequence_parallel import SEQUENCE_AXIS, num_shards


class RingOptions(NamedTuple):
    """How far keys go, and what is made of a score."""

    devices: int
    window: int | None
    softcap: float | None


class KVShard(NamedTuple):
    """What goes around: keys, values and documents of one part of the sequence."""

    key_BGTK: Array
    value_BGTK: Array
    document_BT: Array | None


class Residuals(NamedTuple):
    """For the gradient."""

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
    """As `attend`, where T is the part of a device; inside of
    `parallel.sharding.sequence_parallel.in_parts`."""
    B, H, T, K = query_BHTK.shape
    G = key_BGTK.shape[1]
    grouped = (B, G, H // G, T, K)
    query_BGRTK = jnp.reshape(
        query_BHTK, grouped, out_sharding=out_sharding("batch", "kv_heads", None, None, None)
    )
    sink_GR = (
        None if sink_H is None else sink_H.reshape(G, H // G, out_sharding=out_sharding("kv_heads", None))
    )
    here = KVShard(key_BGTK, value_BGTK, document_BT)
    mixed_BGRTK = _attend(RingOptions(num_shards(), window, softcap), query_BGRTK, here, sink_GR)
    return jnp.reshape(mixed_BGRTK, (B, H, T, -1), out_sharding=out_sharding("batch", "heads", None, None))


def _attend_primal(ring: RingOptions, query_BGRTK: Array, here: KVShard, sink_GR: Array | None) -> Array:
    return _forward(ring, query_BGRTK, here, sink_GR)[0]


_attend = jax.custom_vjp(_attend_primal, nondiff_argnums=(0,))


def _forward(
    ring: RingOptions, query_BGRTK: Array, here: KVShard, sink_GR: Array | None
) -> tuple[Array, Residuals]:
    cuts = query_blocks(query_BGRTK.shape[3])
    asking = [query_BGRTK[:, :, :, start:stop] for start, stop in cuts]

    def meet(hop: Array, there: KVShard, sums: list[OnlineState]) -> list[OnlineState]:
        turns = _kv_blocks(ring, hop, here, there)
        return [update(*each) for each in zip(sums, asking, turns, strict=True)]

    begun_with = _kv_blocks(ring, None, here, here)
    sums = [init(query, turn) for query, turn in zip(asking, begun_with, strict=True)]
    sums = _rotate(ring, here, meet, sums)
    done = [finalize(each, stop - start, sink_GR) for each, (start, stop) in zip(sums, cuts, strict=True)]
    mixed_BGRTK, total_BGRT1 = (jnp.concatenate(each, axis=3) for each in zip(*done, strict=True))
    mixed_BGRTK = mixed_BGRTK.astype(here.value_BGTK.dtype)
    return mixed_BGRTK, Residuals(query_BGRTK, here, sink_GR, mixed_BGRTK, total_BGRT1)


def _backward(ring: RingOptions, kept: Residuals, slope_BGRTK: Array) -> tuple[Array, KVShard, Array | None]:
    product_BGRTK = kept.mixed_BGRTK.astype(jnp.float32) * slope_BGRTK.astype(jnp.float32)
    along_BGRT1 = jnp.sum(product_BGRTK, axis=-1, keepdims=True)
    wanted = BackwardInputs(kept.query_BGRTK, kept.total_BGRT1, slope_BGRTK, along_BGRT1)

    def meet(hop: Array, there: KVShard, gradient: tuple[Array, KVShard]) -> tuple[Array, KVShard]:
        query_BGRTK, theirs = gradient
        return _add(
            (query_BGRTK, _shift(theirs, ring, 1)), _shard_gradients(ring, hop, wanted, kept.local, there)
        )

    gradient = _shard_gradients(ring, None, wanted, kept.local, kept.local)
    query_BGRTK, theirs = _rotate(ring, kept.local, meet, gradient)
    sink_GR = None if kept.sink_GR is None else _sink_gradient(kept.sink_GR, wanted)
    home = _shift(theirs, ring, -_hops(ring, kept.local))
    return query_BGRTK.astype(kept.query_BGRTK.dtype), home, sink_GR


_attend.defvjp(_forward, _backward)


def _rotate(
    ring: RingOptions, here: KVShard, meet: Callable[[Array, KVShard, Any], Any], carried: Any
) -> Any:
    """`meet` with hop 1, 2, ... and the part that has come by then, each sent on while it is met. A loop, so
    that no compiler has several of them at a time."""
    last = _hops(ring, here)
    if not last:
        return carried

    def turn(state: tuple[KVShard, Any], hop: Array) -> tuple[tuple[KVShard, Any], None]:
        there, carried = state
        # Masks are of no token: JAX would take them out of a loop that is computed again, and keep all hops'.
        there, hop = jax.lax.optimization_barrier((there, hop))
        return (_shift(there, ring, 1), meet(hop, there, carried)), None

    (there, carried), _ = jax.lax.scan(turn, (_shift(here, ring, 1), carried), jnp.arange(1, last))
    return meet(jnp.asarray(last), there, carried)


def _shift(part: KVShard, ring: RingOptions, by: int) -> KVShard:
    """Around, as links are; what the last sends to the first is later than all that the first may see."""
    if by == 0:
        return part
    to = [(device, (device + by) % ring.devices) for device in range(ring.devices)]
    return jax.tree.map(lambda x: jax.lax.ppermute(x, SEQUENCE_AXIS, to), part)


def _kv_blocks(ring: RingOptions, hop: Array | None, here: KVShard, there: KVShard) -> Iterator[KVBlock]:
    """What each block of queries meets after so many hops; None: its own part, but no keys after its end."""
    T = here.key_BGTK.shape[2]
    mine = 0 if hop is None else jax.lax.axis_index(SEQUENCE_AXIS) * T
    theirs = 0 if hop is None else mine - hop * T
    for start, stop in query_blocks(T):
        keys = stop if hop is None else T
        mask = causal_mask(mine + jnp.arange(start, stop), theirs + jnp.arange(keys), ring.window)
        if here.document_BT is not None and there.document_BT is not None:
            mask = mask_documents(mask, here.document_BT[:, start:stop], there.document_BT[:, :keys])
        yield KVBlock(there.key_BGTK[:, :, :keys], there.value_BGTK[:, :, :keys], mask, ring.softcap)


def _shard_gradients(
    ring: RingOptions, hop: Array | None, wanted: BackwardInputs, here: KVShard, there: KVShard
) -> tuple[Array, KVShard]:
    """Of a device's queries, and of the keys and values that it has after so many hops."""
    T = here.key_BGTK.shape[2]
    queries, theirs = [], []
    for (start, stop), turn in zip(query_blocks(T), _kv_blocks(ring, hop, here, there), strict=True):
        block = BackwardInputs(*(each[:, :, :, start:stop] for each in wanted))
        query_BGRTK, *both = block_gradients(block, turn)
        queries.append(query_BGRTK)
        theirs.append([jnp.pad(each, ((0, 0), (0, 0), (0, T - each.shape[2]), (0, 0))) for each in both])
    key_BGTK, value_BGTK = functools.reduce(_add, theirs)
    return jnp.concatenate(queries, axis=3), KVShard(key_BGTK, value_BGTK, None)


def _sink_gradient(sink_GR: Array, wanted: BackwardInputs) -> Array:
    """The gradient of a sink, whose value is zero."""
    share_BGRT = jnp.exp(sink_GR[..., None] - wanted.total_BGRT1[..., 0])
    return -jnp.sum(share_BGRT * wanted.along_BGRT1[..., 0], axis=(0, 3))


def _add(one: Any, other: Any) -> Any:
    return jax.tree.map(jnp.add, one, other)


def _hops(ring: RingOptions, here: KVShard) -> int:
    return num_hops(here.key_BGTK.shape[2], ring.window, ring.devices)


def num_hops(part: int, window: int | None, devices: int) -> int:
    """How often keys are passed on: a window reaches so many parts back."""
    return devices - 1 if window is None else min(devices - 1, -(-(window - 1) // part))


def mean_computed_keys_ring(length: int, window: int | None, devices: int) -> float:
    """Keys a query as `attend_around` multiplies them: blocks of its own part, and whole parts before it."""
    if devices == 1:
        return mean_computed_keys(length, window)
    part = length // devices
    within = sum((stop - start) * stop for start, stop in query_blocks(part)) / part
    return within + part * num_hops(part, window, devices)
