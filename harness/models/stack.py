"""Layers one after the other: as a scan over stacked parameters, and computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax import Array

from harness.config.schema import Remat

POLICIES = {
    Remat.dots: jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    Remat.full: jax.checkpoint_policies.nothing_saveable,
}
"""`dots` keeps products with weights; those among activations (scores: T x T) are computed again."""


def scanned(repeats: nnx.List, x_BTD: Array, context: Any, remat: Remat) -> Array:
    """Through the layers of one repeat, time and again; each is called as layer(x, context)."""
    graph, stacked = nnx.split(repeats)

    def repeat(x_BTD: Array, slices: nnx.State) -> tuple[Array, None]:
        for layer in nnx.merge(graph, slices):
            x_BTD = rematerialised(layer, remat)(x_BTD, context)
        return x_BTD, None

    return jax.lax.scan(repeat, x_BTD, stacked)[0]


def rematerialised(layer: Any, remat: Remat) -> Callable[[Array, Any], Array]:
    if remat is Remat.none:
        return layer
    graph, state = nnx.split(layer)
    plain = jax.checkpoint(
        lambda state, x_BTD, context: nnx.merge(graph, state)(x_BTD, context), policy=POLICIES[remat]
    )
    return lambda x_BTD, context: plain(state, x_BTD, context)
