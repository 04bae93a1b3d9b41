"""Layers one after the other: as a scan over stacked parameters, and computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax import Array

from harness.config.schema.run import Remat

POLICIES = {
    Remat.dots: jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    Remat.full: jax.checkpoint_policies.nothing_saveable,
}
"""`dots` keeps products with weights; those among activations (scores: T x T) are computed again."""


LayerFunction = Callable[[Array, Any], tuple[Array, Any]]
"""A layer: what goes on, [B, T, D], and what it says beside it (None: nothing), from what came and a context
that all layers share."""


def apply_layers(
    repeats: nnx.List, layers: nnx.List, x_BTD: Array, shared_input: Any, remat: Remat
) -> tuple[Array, dict[str, Any]]:
    """Through the layers of `repeats`, time and again as a scan, then through `layers`; and what they said,
    by their path, stacked under a scan."""
    said: dict[str, Any] = {}
    if repeats:
        x_BTD, stacked = _scan_layers(repeats, x_BTD, shared_input, remat)
        said |= {f"repeats.{index}": each for index, each in enumerate(stacked)}
    for index, layer in enumerate(layers):
        x_BTD, said[f"layers.{index}"] = _rematerialise(layer, remat)(x_BTD, shared_input)
    return x_BTD, {path: each for path, each in said.items() if each is not None}


def _scan_layers(repeats: nnx.List, x_BTD: Array, context: Any, remat: Remat) -> tuple[Array, list[Any]]:
    graph, stacked = nnx.split(repeats)

    def repeat(x_BTD: Array, slices: nnx.State) -> tuple[Array, list[Any]]:
        said = []
        for layer in nnx.merge(graph, slices):
            x_BTD, each = _rematerialise(layer, remat)(x_BTD, context)
            said.append(each)
        return x_BTD, said

    return jax.lax.scan(repeat, x_BTD, stacked)


def _rematerialise(layer: Any, remat: Remat) -> LayerFunction:
    if remat is Remat.none:
        return layer
    graph, state = nnx.split(layer)
    plain = jax.checkpoint(
        lambda state, x_BTD, context: nnx.merge(graph, state)(x_BTD, context), policy=POLICIES[remat]
    )
    return lambda x_BTD, context: plain(state, x_BTD, context)
