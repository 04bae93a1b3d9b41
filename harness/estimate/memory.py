"""Bytes of one device by part, in closed form. Activations are an estimate; the state is exact where every
axis divides what it splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.config.schema.run import LOSS_PIECE_VALUES, Remat
from harness.estimate.layouts import LayoutGrid
from harness.estimate.model_size import ModelShape

MEMORY_LIMIT = 0.8
"""Share of a chip's memory that a plan may use; the rest is for the runtime and fragmentation."""
LOGIT_BYTES = 8
"""Bytes of a logit that is held: itself and its gradient, in float32."""


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes of one device by part, one entry per layout."""

    weights: np.ndarray
    optimizer: np.ndarray
    gradients: np.ndarray
    activations: np.ndarray
    gathered: np.ndarray
    """Whole weights of two layers in use, where fsdp keeps them split."""
    logits: np.ndarray
    """Logits of all tokens over a shard of the vocabulary, or those of one piece of the loss."""

    @property
    def total(self) -> np.ndarray:
        """Return the bytes of all parts."""
        return self.weights + self.optimizer + self.gradients + self.activations + self.gathered + self.logits


def device_memory(model: ModelShape, layout: LayoutGrid) -> DeviceMemory:
    """Return the bytes of the fullest device (the first pipeline stage) in each layout."""
    parameters = parameters_per_device(model, layout)
    tokens = layout.microbatch * model.sequence / layout.context / layout.tensor
    tokens = tokens * np.minimum(1.0, layout.sequences_per_replica(model))
    extra_share = (layout.pipeline - 1) / (layout.pipeline * layout.virtual) * (layout.virtual > 1)
    in_flight = np.minimum(layout.microbatches(model), layout.pipeline) * (1 + extra_share)
    in_flight = np.where(layout.pipeline > 1, in_flight, 1.0)
    layers, precision = model.layers / layout.pipeline, model.precision
    all_values = activation_values(model, 0) * precision.value_bytes
    remat_values = [model.width * precision.value_bytes, activation_values(model, 1) * precision.value_bytes]
    remats = [layout.has_remat(Remat.full), layout.has_remat(Remat.dots)]
    layer_bytes = np.select(remats, remat_values, all_values)
    work = all_values * (remats[0] | remats[1])
    logits = np.minimum(tokens * model.vocabulary, LOSS_PIECE_VALUES)
    gathers = layout.fsdp * (layout.expert if model.gathers_expert_weights else 1) > 1
    return DeviceMemory(
        weights=parameters * precision.weight_bytes,
        optimizer=parameters * precision.optimizer_bytes,
        gradients=parameters * precision.gradient_bytes,
        activations=tokens * (layer_bytes * layers * in_flight + work),
        gathered=np.where(gathers, 2 * layer_parameters(model, layout) * precision.value_bytes, 0.0),
        logits=logits * LOGIT_BYTES,
    )


def parameters_per_device(model: ModelShape, layout: LayoutGrid) -> np.ndarray:
    """Return the parameters that one device keeps, exact if the model says which axes split them; else all
    are taken to be split over fsdp, tensor and pipeline, and routed experts over expert too."""
    if model.parameters_by_axes:
        parts = (count / _num_shards(layout, axes) for axes, count in model.parameters_by_axes)
        return sum(parts, np.zeros(len(layout))) / layout.pipeline
    experts = model.expert_parameters / layout.expert
    return (model.dense_parameters + experts) / (layout.fsdp * layout.tensor * layout.pipeline)


def _num_shards(layout: LayoutGrid, axes: Sequence[str]) -> np.ndarray:
    return np.prod([getattr(layout, axis) for axis in axes], axis=0) if axes else np.ones(len(layout))


def layer_parameters(model: ModelShape, layout: LayoutGrid) -> np.ndarray:
    """Return the parameters of one layer that a device multiplies with: its shard over tensor, and of experts
    over expert unless their weights are gathered."""
    dense = (model.dense_parameters - model.embedding) / model.layers
    parts = 1 if model.gathers_expert_weights else layout.expert
    return (dense + model.expert_parameters / model.layers / parts) / layout.tensor


def activation_values(model: ModelShape, level: int) -> float:
    """Return the values that the backward pass keeps of one token in one layer, without attention scores.
    Level 0: all inputs of products, norms and gates (after arXiv:2205.05198, table 2, less the scores). Level
    1: outputs of products with weights (remat `dots`)."""
    heads, groups = model.heads * model.head_width, model.kv_heads * model.head_width
    used = model.experts_per_token
    hidden = used * model.ffn * (2 if model.gated else 1)
    products = heads + 2 * groups + 2 * model.width + hidden
    if level:
        return products + model.width
    return products + heads + 3 * model.width + used * model.ffn + 2 * model.top_k * model.width
