"""Bytes of one device by part, in closed form. Activations are an estimate; the state is exact where every
axis divides what it splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.config.schema.run import LOSS_PIECE_VALUES, Remat
from harness.estimate.activations import activation_bytes
from harness.estimate.layouts import LayoutGrid
from harness.estimate.model_size import ModelShape

MEMORY_LIMIT = 0.8
"""Share of a chip's memory that a plan may use; the rest is for the runtime and fragmentation."""
MEMORY_UNCERTAINTY = 1.25
"""Factor either way by which the estimate of activations may be wrong. Assumed. The state is exact."""
EXACT_PARTS = ("weights", "optimizer", "gradients", "copy")
"""Parts that are counts."""
GRADIENT_BYTES = 4
"""Bytes of a value of a weight's gradient before it is added up over devices."""
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
    """Whole weights in use, where fsdp keeps them split."""
    logits: np.ndarray
    """Logits of all tokens over a shard of the vocabulary, or those of one piece of the loss."""

    @property
    def total(self) -> np.ndarray:
        """Return the bytes of all parts."""
        return self.weights + self.optimizer + self.gradients + self.activations + self.gathered + self.logits


def device_memory(model: ModelShape, layout: LayoutGrid) -> DeviceMemory:
    """Return the bytes of the fullest device (the first pipeline stage) in each layout."""
    parameters, precision = parameters_per_device(model, layout), model.precision
    passes = layout.microbatches(model)
    tokens = layout.microbatch * model.sequence / layout.context
    tokens = tokens * np.minimum(1.0, layout.sequences_per_replica(model))
    saved, work = activation_bytes(model, layout)
    # Ours add the gradients of a micro-batch to those before it; a pipeline takes the head of all at once.
    adds, head_passes = np.ones(len(layout)), np.ones(len(layout))
    if model.limits:
        adds = np.where((passes > 1) & (layout.pipeline == 1), 2, 1)
        head_passes = np.where(layout.pipeline > 1, passes / layout.pipeline, 1.0)
    logits = tokens * head_passes * model.rows / layout.tensor
    return DeviceMemory(
        weights=parameters * precision.weight_bytes,
        optimizer=parameters * precision.optimizer_bytes,
        gradients=parameters * precision.gradient_bytes * adds,
        activations=tokens * (saved * model.layers / layout.pipeline * _in_flight(model, layout) + work),
        gathered=_gathered_bytes(model, layout),
        logits=np.minimum(logits, LOSS_PIECE_VALUES) * LOGIT_BYTES,
    )


def _in_flight(model: ModelShape, layout: LayoutGrid) -> np.ndarray:
    """Return the micro-batches whose activations the first stage keeps at once: ours scan all turns
    (models.execution.pipeline), other frameworks begin the backward pass when the pipeline is full."""
    passes = layout.microbatches(model)
    if model.limits:
        return np.where(layout.pipeline > 1, passes + layout.pipeline - 1, 1.0)
    extra_share = (layout.pipeline - 1) / (layout.pipeline * layout.virtual) * (layout.virtual > 1)
    return np.where(layout.pipeline > 1, np.minimum(passes, layout.pipeline) * (1 + extra_share), 1.0)


def _gathered_bytes(model: ModelShape, layout: LayoutGrid) -> np.ndarray:
    """Return the bytes of whole weights beside the shards: of two layers, and a gradient of one before it is
    scattered. Without remat the harness keeps those of all layers from the forward to the backward pass."""
    gathers = layout.fsdp * (layout.expert if model.gathers_expert_weights else 1) > 1
    layer, size = layer_parameters(model, layout), model.precision.value_bytes
    if model.limits is None:
        return np.where(gathers, 2 * layer * size, 0.0)
    table = model.rows * model.width * GRADIENT_BYTES / layout.tensor
    used = np.where(gathers, layer * (2 * size + GRADIENT_BYTES) + 2 * table, 0.0)
    copies = gathers | (size < model.precision.weight_bytes)
    all_layers = layer * size * model.layers / layout.pipeline
    return used + np.where(layout.has_remat(Remat.none) & copies, all_layers, 0.0)


def least_bytes(parts: Mapping[str, float], doubt: float) -> float:
    """Return the bytes of a device if its estimated parts are too large by the factor `doubt`."""
    return sum(size if name in EXACT_PARTS else size / doubt for name, size in parts.items())


def parameters_per_device(model: ModelShape, layout: LayoutGrid) -> np.ndarray:
    """Return the parameters that one device keeps, exact if the model says which axes split them; otherwise
    all are taken to be split over fsdp, tensor and pipeline, and routed experts over expert too."""
    if model.parameters_by_axes:
        parts = (count / _num_shards(layout, axes) for axes, count in model.parameters_by_axes)
        return sum(parts, np.zeros(len(layout)))
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
