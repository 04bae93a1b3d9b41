"""Bytes of one device, by part, in closed form. Per-device activations are an estimate; the state is exact
where every axis divides what it splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.plan.cost_model.layouts import LayoutGrid
from harness.plan.cost_model.model_size import ModelShape
from harness.plan.cost_model.precision import TrainingPrecision

MEMORY_LIMIT = 0.8
"""Of a chip's memory: the rest is the runtime's, fragmentation's and what is not modelled."""
LOSS_TOKENS = 8192
"""Tokens whose logits are held at once; longer batches are assumed to take the loss in chunks."""


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes of one device, one entry a layout."""

    weights: np.ndarray
    optimizer: np.ndarray
    gradients: np.ndarray
    activations: np.ndarray
    gathered: np.ndarray
    """Weights of two layers that are whole for use, where fsdp keeps them split."""
    logits: np.ndarray

    @property
    def total(self) -> np.ndarray:
        return self.weights + self.optimizer + self.gradients + self.activations + self.gathered + self.logits

    @property
    def state(self) -> np.ndarray:
        return self.weights + self.optimizer


def device_memory(model: ModelShape, layout: LayoutGrid, precision: TrainingPrecision) -> DeviceMemory:
    """Bytes of the fullest device (the first pipeline stage), each layout."""
    parameters = parameters_per_device(model, layout)
    tokens = layout.microbatch * model.sequence / layout.context / layout.tensor
    tokens = tokens * np.minimum(1.0, layout.sequences_per_replica(model))
    in_flight = np.where(
        layout.pipeline > 1,
        np.minimum(layout.microbatches(model), layout.pipeline)
        * (1 + (layout.pipeline - 1) / (layout.pipeline * layout.virtual) * (layout.virtual > 1)),
        1.0,
    )
    layers = model.layers / layout.pipeline
    all_layer_bytes = activation_values(model, 0) * precision.activation_bytes
    layer_bytes = np.select(
        [layout.full_remat, layout.dots_remat],
        [model.width * precision.activation_bytes, activation_values(model, 1) * precision.activation_bytes],
        all_layer_bytes,
    )
    work = all_layer_bytes * (layout.full_remat | layout.dots_remat)
    loss_tokens = np.minimum(tokens * layout.tensor, LOSS_TOKENS)
    return DeviceMemory(
        weights=parameters * precision.weight_bytes,
        optimizer=parameters * precision.optimizer_bytes,
        gradients=parameters * precision.gradient_bytes,
        activations=tokens * (layer_bytes * layers * in_flight + work),
        gathered=np.where(
            layout.fsdp * (layout.expert if model.gathers_expert_weights else 1) > 1,
            2 * layer_parameters(model, layout) * precision.activation_bytes,
            0.0,
        ),
        logits=loss_tokens * model.vocabulary / layout.tensor * (precision.activation_bytes + 4),
    )


def parameters_per_device(model: ModelShape, layout: LayoutGrid) -> np.ndarray:
    """Parameters that one device keeps, exact where the model says what splits them; else all are taken to be
    split over fsdp, tensor and pipeline, and those of routed experts over expert too."""
    if model.parameters_by_axes:
        parts = (count / _num_shards(layout, axes) for axes, count in model.parameters_by_axes)
        return sum(parts, np.zeros(len(layout))) / layout.pipeline
    experts = model.expert_parameters / layout.expert
    return (model.dense_parameters + experts) / (layout.fsdp * layout.tensor * layout.pipeline)


def _num_shards(layout: LayoutGrid, axes: Sequence[str]) -> np.ndarray:
    return np.prod([getattr(layout, axis) for axis in axes], axis=0) if axes else np.ones(len(layout))


def layer_parameters(model: ModelShape, layout: LayoutGrid) -> np.ndarray:
    """Parameters of one layer that a device multiplies with: its part over tensor, and of experts over expert
    unless their weights travel."""
    dense = (model.non_embedding - model.expert_parameters) / model.layers
    parts = 1 if model.gathers_expert_weights else layout.expert
    return (dense + model.expert_parameters / model.layers / parts) / layout.tensor


def activation_values(model: ModelShape, level: int) -> float:
    """Values that the backward pass keeps of one token in one layer, scores never written out.

    0: all inputs of products, norms and gates (after arXiv:2205.05198, table 2, less the scores).
    1: what products with weights give (remat `dots`).
    """
    heads, groups = model.heads * model.head_width, model.kv_heads * model.head_width
    used = model.top_k + model.shared_experts if model.experts else 1
    hidden = used * model.ffn * (2 if model.gated else 1)
    products = heads + 2 * groups + 2 * model.width + hidden
    if level:
        return products + model.width
    dispatched = 2 * model.top_k * model.width
    return products + heads + 3 * model.width + used * model.ffn + dispatched
