"""Softmax attention over a sequence whose parts are on several devices (ring attention, arXiv:2310.01889).

A device keeps its queries. Keys and values go from each to the one with the next part, as far as a query
sees, and each time the softmax is continued with them (online softmax, arXiv:1805.02867).

Parts stay in order, so that the first device has the least to see: it multiplies what it masks, and so all
take as long as the last. The products are written out on every platform.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from harness.models.attention.softmax import blocks, keys_multiplied, masked_scores, of_sinks, own, visible
from harness.parallel.context import AXIS, parts
from harness.parallel.rules import layout


class Sums(NamedTuple):
    """Of a softmax over the keys that came so far, float32; M are the queries of a group's heads."""

    highest_BGM1: Array
    sum_BGM1: Array
    mixed_BGMK: Array


def attend_around(
    query_BHTK: Array,
    key_BGTK: Array,
    value_BGTK: Array,
    window: int | None,
    softcap: float | None = None,
    sink_H: Array | None = None,
    document_BT: Array | None = None,
) -> Array:
    """As `attend`, where T is the part of a device; inside of `parallel.context.in_parts`."""
    B, H, T, K = query_BHTK.shape
    G, devices = key_BGTK.shape[1], parts()
    grouped = (B, G, H // G, T, K)
    query_BGRTK = jnp.reshape(query_BHTK, grouped, out_sharding=layout("batch", "kv_heads", None, None, None))
    sums = _own_part(query_BGRTK, key_BGTK, value_BGTK, window, softcap, document_BT)
    at_T = jax.lax.axis_index(AXIS) * T + jnp.arange(T)
    passed = (key_BGTK, value_BGTK, document_BT)
    for hop in range(1, hops(T, window, devices) + 1):
        passed = jax.tree.map(lambda x: jax.lax.ppermute(x, AXIS, _forward(devices)), passed)
        key, value, theirs_BT = passed
        mask_TS = visible(at_T, at_T - hop * T, window)
        mask = mask_TS if document_BT is None else own(mask_TS, document_BT, theirs_BT)
        sums = _continued(sums, masked_scores(query_BGRTK, key, mask, softcap), value)
    sum_BGM1 = sums.sum_BGM1
    if sink_H is not None:
        sink_GR = sink_H.reshape(G, H // G, out_sharding=layout("kv_heads", None))
        sum_BGM1 += of_sinks(sink_GR, T, sums.highest_BGM1)
    mixed_BGMK = (sums.mixed_BGMK / sum_BGM1).astype(value_BGTK.dtype)
    return jnp.reshape(mixed_BGMK, (B, H, T, -1), out_sharding=layout("batch", "heads", None, None))


def _forward(devices: int) -> list[tuple[int, int]]:
    """Around, as links are; what the last sends to the first is later than all that the first may see."""
    return [(device, (device + 1) % devices) for device in range(devices)]


def _own_part(
    query_BGRTK: Array,
    key_BGTK: Array,
    value_BGTK: Array,
    window: int | None,
    softcap: float | None,
    document_BT: Array | None,
) -> Sums:
    """In blocks that leave out the keys after their end, as `attend`."""
    B, G, R, T, _ = query_BGRTK.shape
    made = []
    for start, stop in blocks(T):
        mask = visible(jnp.arange(start, stop), jnp.arange(stop), window)
        if document_BT is not None:
            mask = own(mask, document_BT[:, start:stop], document_BT[:, :stop])
        score = masked_scores(query_BGRTK[:, :, :, start:stop], key_BGTK[:, :, :stop], mask, softcap)
        begun = _continued(_nothing(score, value_BGTK.shape[-1]), score, value_BGTK[:, :, :stop])
        made.append([each.reshape(B, G, R, stop - start, -1) for each in begun])
    return Sums(*(jnp.concatenate(each, axis=3).reshape(B, G, R * T, -1) for each in zip(*made, strict=True)))


def _nothing(score_BGMS: Array, width: int) -> Sums:
    """Finite, so that a part of which a query sees nothing leaves what it has: exp(-inf) = 0."""
    none_BGM1 = jnp.zeros_like(score_BGMS[..., :1])
    mixed_BGMK = jnp.broadcast_to(none_BGM1, (*none_BGM1.shape[:-1], width))
    return Sums(none_BGM1 + jnp.finfo(jnp.float32).min, none_BGM1, mixed_BGMK)


def _continued(sums: Sums, score_BGMS: Array, value_BGSK: Array) -> Sums:
    """With more keys: what was there is scaled to the highest score of all."""
    here_BGM1 = jnp.max(score_BGMS, axis=-1, keepdims=True)
    highest_BGM1 = jax.lax.stop_gradient(jnp.maximum(sums.highest_BGM1, here_BGM1))
    weight_BGMS = jnp.exp(score_BGMS - highest_BGM1)
    before_BGM1 = jnp.exp(sums.highest_BGM1 - highest_BGM1)
    more_BGMK = jnp.einsum(
        "bgms,bgsk->bgmk",
        weight_BGMS.astype(value_BGSK.dtype),
        value_BGSK,
        preferred_element_type=jnp.float32,
    )
    return Sums(
        highest_BGM1,
        sums.sum_BGM1 * before_BGM1 + jnp.sum(weight_BGMS, axis=-1, keepdims=True),
        sums.mixed_BGMK * before_BGM1 + more_BGMK,
    )


def hops(part: int, window: int | None, devices: int) -> int:
    """How often keys are passed on: a window reaches so many parts back."""
    return devices - 1 if window is None else min(devices - 1, -(-(window - 1) // part))


def keys_multiplied_around(length: int, window: int | None, devices: int) -> float:
    """Keys a query as `attend_around` multiplies them: blocks of its own part, and whole parts before it."""
    if devices == 1:
        return keys_multiplied(length, window)
    part = length // devices
    within = sum((stop - start) * stop for start, stop in blocks(part)) / part
    return within + part * hops(part, window, devices)
