"""Bytes of activations of one device: what the forward pass keeps for the backward pass, and what that one
works with, of a layer at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.config.schema.run import Remat
from harness.estimate.layouts import LayoutGrid
from harness.estimate.model_size import ModelShape

FUSED_SHARE = 0.65
"""Share of the values that JAX keeps which a compiled layer holds at once, where they do not have to outlast
a loop: the others are computed within fused operations. Measured on the CPU (tests/training)."""


@dataclass(frozen=True)
class TokenBytes:
    """Bytes of one token in one layer."""

    unsplit: float
    """Bytes of values as wide as the model, which every device of `tensor` holds."""
    tensor_split: float
    """Bytes of heads, hidden values and scores, which `tensor` splits."""

    def on_device(self, layout: LayoutGrid) -> np.ndarray:
        """Return the bytes on one device in each layout."""
        return self.unsplit + self.tensor_split / layout.tensor


def activation_bytes(model: ModelShape, layout: LayoutGrid) -> tuple[np.ndarray, np.ndarray]:
    """Return (kept, work): bytes of one token in one layer that are kept until its backward pass, and those
    that this pass holds of a layer at a time."""
    if model.kept_bytes is not None:
        return model.kept_bytes * np.ones(len(layout)), np.zeros(len(layout))
    remats = [layout.has_remat(Remat.full), layout.has_remat(Remat.dots)]
    # Between layers tensor splits the sequence (harness.parallel.sharding.split_time).
    inputs = model.width * model.precision.value_bytes / layout.tensor
    if model.limits is None:
        full = _published_bytes(model, 0) / layout.tensor
        dots = _published_bytes(model, 1) / layout.tensor
        return np.select(remats, [inputs, dots], full), full * (remats[0] | remats[1])
    full, dots = kept_bytes(model).on_device(layout), _product_bytes(model).on_device(layout)
    work = FUSED_SHARE * full
    saved = full if model.scanned else np.maximum(work, dots)
    return np.select(remats, [inputs, dots], saved), np.select(
        remats, [work, np.maximum(0, work - dots)], 0.0
    )


def kept_bytes(model: ModelShape) -> TokenBytes:
    """Return what JAX keeps of a layer of ours without remat: inputs of products in compute precision; norms
    and rotations in float32; of each score that is kept, itself, its exponential in both
    precisions, and the mask."""
    size, heads = model.precision.value_bytes, model.heads * model.head_width
    used = model.experts_per_token
    unsplit = model.width * (24 + 5 * size + 2 * model.top_k * size)
    scores = model.saved_scores / model.layers * (9 + size)
    return TokenBytes(unsplit, heads * (28 + 6 * size) + 6 * size * used * model.ffn + scores)


def _product_bytes(model: ModelShape) -> TokenBytes:
    """Return what remat `dots` keeps of a layer of ours: outputs of products with weights but the last, and
    the layer's input."""
    size, used = model.precision.value_bytes, model.experts_per_token
    heads = (model.heads + 2 * model.kv_heads) * model.head_width
    return TokenBytes(model.width * size, (model.width + heads + 2 * used * model.ffn) * size)


def _published_bytes(model: ModelShape, level: int) -> float:
    return activation_values(model, level) * model.precision.value_bytes


def activation_values(model: ModelShape, level: int) -> float:
    """Return the values that the backward pass of other frameworks keeps of one token in one layer, without
    attention scores. Level 0: all inputs of products, norms and gates (after arXiv:2205.05198, table 2, less
    the scores). Level 1: outputs of products with weights (remat `dots`)."""
    heads, groups = model.heads * model.head_width, model.kv_heads * model.head_width
    used = model.experts_per_token
    hidden = used * model.ffn * (2 if model.gated else 1)
    products = heads + 2 * groups + 2 * model.width + hidden
    if level:
        return products + model.width
    return products + heads + 3 * model.width + used * model.ffn + 2 * model.top_k * model.width
