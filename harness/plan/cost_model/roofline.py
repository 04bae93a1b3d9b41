"""Seconds of one step by what they go to, in closed form over whole grids of layouts.

What overlaps: half of the collectives of `tensor` with the products beside them, half of experts' exchanges
with other work; gathers and scatters of `fsdp` with all products; the sum of gradients over `data` with the
last micro-batch's backward pass, but a third of it shows at least; the bubble of a pipeline with nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from harness.plan.cluster.clusters import Chip, Links
from harness.plan.cost_model.layouts import LayoutGrid
from harness.plan.cost_model.memory import parameters_per_device
from harness.plan.cost_model.model_size import TRAIN_FLOPS_MULTIPLE, ModelShape
from harness.plan.cost_model.precision import TrainingPrecision

EXPOSED_TENSOR = {True: 0.5, False: 1.0}
"""Of these collectives, by whether the kernels are fused (Recipe.fused)."""
EXPOSED_EXPERT = 0.5
EXPOSED_DATA = 0.3
EXPOSED_OTHER = 0.1
"""Of any other collective that overlaps: what shows all the same."""
LINK_EFFICIENCY = 0.8
"""Of a link's rate that a large collective reaches."""
MAX_EXPERT_DOMAINS = 4
"""Fast domains at most that a token's experts are in (arXiv:2412.19437, section 2.1.2)."""
EXPERT_EXCHANGES = 4
"""Of tokens with experts: there and back, forward and backward."""
STRAGGLER_SPREAD = 0.01
"""Spread of a device's step time, relative: the slowest of n is about sqrt(2 ln n) of it behind."""
KERNELS_PER_LAYER = 60
"""Started a layer and pass of a micro-batch, forward and backward. Assumed."""
LAUNCH_SECONDS = 4e-6
"""Seconds to start one; only where devices wait for it does it show. Assumed."""
OPTIMIZER_BYTES = 28
"""Read and written of memory a parameter that one device updates."""


@dataclass(frozen=True)
class Efficiency:
    """Shares of the peak that a chip's large products reach, before any waiting."""

    dense: float
    experts: float
    """The same of routed experts' small grouped products."""
    narrow: Mapping[str, float]
    """What is left of them in fewer than 16 bits, by precision."""


@dataclass(frozen=True)
class StepTerms:
    """Seconds of a step, one entry a layout."""

    compute: np.ndarray
    memory: np.ndarray
    """Norms, gates and residuals: what is read and written between products."""
    tensor: np.ndarray
    context: np.ndarray
    fsdp: np.ndarray
    expert: np.ndarray
    data: np.ndarray
    pipeline: np.ndarray
    """The bubble, and what is handed on."""
    optimizer: np.ndarray
    straggler: np.ndarray
    launch: np.ndarray
    """What a step of little work waits for its kernels to be started."""

    @property
    def total(self) -> np.ndarray:
        return sum((getattr(self, field.name) for field in dataclasses.fields(self)), np.zeros(1))


@dataclass(frozen=True)
class Traffic:
    """Bytes that one device receives in a step, one entry a layout."""

    tensor: np.ndarray
    context: np.ndarray
    fsdp: np.ndarray
    expert: np.ndarray
    data: np.ndarray

    @property
    def total(self) -> np.ndarray:
        return self.tensor + self.context + self.fsdp + self.expert + self.data


def step_terms(
    model: ModelShape,
    layout: LayoutGrid,
    chip: Chip,
    links: Links,
    precision: TrainingPrecision,
    efficiency: Efficiency,
) -> StepTerms:
    """Seconds of each part of a step, what overlaps taken off."""
    received = step_traffic(model, layout, precision)
    compute = compute_seconds(model, layout, chip, precision, efficiency)
    between = _elementwise_seconds(model, layout, chip, precision)
    tensor = EXPOSED_TENSOR[precision.fused_kernels] * _ring_seconds(
        received.tensor, layout.tensor, np.ones(len(layout)), links
    )
    context = _context_seconds(model, layout, links, received.context, compute)
    fsdp = _fsdp_seconds(model, layout, links, precision, compute)
    expert = EXPOSED_EXPERT * _all_to_all_seconds(model, received.expert, layout, links)
    data = _data_seconds(model, layout, links, precision, compute)
    busy = compute + between + tensor + context + fsdp + expert
    pipeline = _pipeline_seconds(model, layout, links, precision, busy)
    optimizer = parameters_per_device(model, layout) * OPTIMIZER_BYTES / chip.memory_bandwidth
    behind = STRAGGLER_SPREAD * np.sqrt(2 * np.log(np.maximum(layout.devices, 1)))
    straggler = behind * (busy + pipeline + data)
    launch = np.maximum(0.0, _launch_seconds(model, layout) - busy - pipeline)
    parts = tensor, context, fsdp, expert, data, pipeline
    return StepTerms(compute, between, *parts, optimizer, straggler, launch)


def _launch_seconds(model: ModelShape, layout: LayoutGrid) -> np.ndarray:
    """Seconds that a host needs to start every kernel of a step, one after the other."""
    return LAUNCH_SECONDS * KERNELS_PER_LAYER * model.layers / layout.pipeline * layout.microbatches(model)


def hardware_flops(model: ModelShape, layout: LayoutGrid) -> np.ndarray:
    """Executed FLOPs of a step, all devices: the model's, and what remat multiplies again."""
    recomputed = np.select(
        [layout.full_remat, layout.dots_remat], [model.flops_per_token / 3, model.attention_flops / 3], 0.0
    )
    return (model.flops_per_token + recomputed) * model.tokens_per_step


def compute_seconds(
    model: ModelShape, layout: LayoutGrid, chip: Chip, precision: TrainingPrecision, efficiency: Efficiency
) -> np.ndarray:
    """Products with weights at the recipe's precision, attention in 16 bits; experts less efficiently. Those
    that are narrow, or of few tokens, take as long as their operands take to come from memory."""
    narrow = precision.matmul_dtype in efficiency.narrow
    peak = chip.peak(precision.matmul_dtype) * efficiency.narrow.get(precision.matmul_dtype, 1.0)
    slow = chip.peak("bf16") if narrow else peak
    dense = model.flops_per_token - model.attention_flops - model.expert_flops
    recompute_factor = np.broadcast_to(hardware_flops(model, layout) / model.step_flops, len(layout))
    device_tokens = recompute_factor * model.tokens_per_step / layout.devices
    attention = device_tokens * model.attention_flops / (slow * efficiency.dense)
    read = operand_bytes(model, layout, precision) * recompute_factor / chip.memory_bandwidth
    plain = np.maximum(device_tokens * dense / (peak * efficiency.dense), read[0])
    return (
        attention
        + plain
        + np.maximum(device_tokens * model.expert_flops / (peak * efficiency.experts), read[1])
    )


def operand_bytes(model: ModelShape, layout: LayoutGrid, precision: TrainingPrecision) -> np.ndarray:
    """Bytes that one device's products read and write, of dense weights and of routed experts', [2, layouts].
    What comes in and goes out at full width is not split by tensor; weights are read in each micro-batch."""
    layer_tokens = layout.tokens_per_device(model) * model.layers / layout.pipeline
    inner = (model.heads + 2 * model.kv_heads) * model.head_width + 3 * max(
        1, model.shared_experts
    ) * model.ffn
    dense = layer_tokens * (4 * model.width + inner / layout.tensor)
    routed = layer_tokens * model.top_k * (2 * model.width + 3 * model.ffn / layout.tensor)
    passes = layout.microbatches(model) / (layout.tensor * layout.pipeline)
    weights = np.stack([model.dense_parameters * passes, model.expert_parameters / layout.expert * passes])
    return TRAIN_FLOPS_MULTIPLE * precision.activation_bytes * (np.stack([dense, routed]) + weights)


def step_traffic(model: ModelShape, layout: LayoutGrid, precision: TrainingPrecision) -> Traffic:
    """Bytes that one device receives in a step, whether or not they overlap with work."""
    tokens, layers = layout.tokens_per_device(model), model.layers / layout.pipeline
    value = model.width * precision.activation_bytes
    sums = np.where(layout.full_remat, 6, 4)
    tensor = sums * layers * 2 * (layout.tensor - 1) / layout.tensor * tokens * value
    expert_bytes = (
        EXPERT_EXCHANGES
        * np.where(layout.full_remat, 1.5, 1.0)
        * layers
        * model.top_k
        * tokens
        / layout.tensor
        * value
    )
    return Traffic(
        tensor=tensor,
        context=_ring_bytes(model, layout, precision),
        fsdp=_gather_bytes(model, layout, precision).sum(axis=0),
        expert=np.where(
            model.gathers_expert_weights, 0.0, expert_bytes * (layout.expert - 1) / layout.expert
        ),
        data=_reduce_bytes(model, layout, precision).sum(axis=0),
    )


def _ring_bytes(model: ModelShape, layout: LayoutGrid, precision: TrainingPrecision) -> np.ndarray:
    """Bytes received around a ring: keys and values of the other parts forward, backward, and in between
    where that is done again; with the backward pass their gradients, which then go home. Done again, the
    first part comes once for both. As if no window kept any from the ring."""
    values = 2 * model.kv_heads * model.head_width * precision.activation_bytes / layout.tensor
    remote_shards = layout.context - 1
    passed = np.where(layout.no_remat, 3 * remote_shards + (remote_shards > 0), 4 * remote_shards)
    return passed * model.layers / layout.pipeline * layout.tokens_per_device(model) * values


def _gather_bytes(model: ModelShape, layout: LayoutGrid, precision: TrainingPrecision) -> np.ndarray:
    """Bytes received for the weights of one device's layers, [2, layouts], over fsdp, and of experts whose
    weights travel over expert too: gathered forward and backward in each micro-batch, and their gradients
    scattered once in each. `full` repeats with what backward gathers."""
    parameters, group = parameters_per_device(model, layout), layout.fsdp * layout.expert
    experts = (
        model.expert_parameters / (group * layout.tensor * layout.pipeline) * model.gathers_expert_weights
    )
    over = np.stack([(parameters - experts) * (layout.fsdp - 1), experts * (group - 1)])
    return 3 * layout.microbatches(model) * precision.activation_bytes * over


def _reduce_bytes(model: ModelShape, layout: LayoutGrid, precision: TrainingPrecision) -> np.ndarray:
    """Bytes received to add up gradients, [3, layouts]: of experts over data, of all else over expert too, of
    both over the parts of a sequence."""
    shard_bytes = precision.activation_bytes / (layout.fsdp * layout.tensor * layout.pipeline)
    copies = layout.data * layout.expert
    experts, dense = (
        model.expert_parameters / layout.expert * shard_bytes,
        model.dense_parameters * shard_bytes,
    )
    return 2 * np.stack(
        [
            experts * (layout.data - 1) / layout.data,
            dense * (copies - 1) / copies,
            (experts + dense) * (layout.context - 1) / layout.context,
        ]
    )


def _members_in_domain(group: np.ndarray, stride: np.ndarray, links: Links) -> np.ndarray:
    """Members of a group that are in one fast domain, where neighbours in it are `stride` devices apart."""
    return np.clip(links.scale_up_domain // stride, 1, group)


def _ring_seconds(
    received_bytes: np.ndarray, group: np.ndarray, stride: np.ndarray, links: Links
) -> np.ndarray:
    """Of a gather, scatter or sum that hands `moved` bytes to each device: inside the fast domain first, and
    between domains what each member of one then shares out."""
    inside = _members_in_domain(group, stride, links)
    domains = group / inside
    full_bytes = received_bytes * group / np.maximum(group - 1, 1)
    fast = full_bytes * (inside - 1) / inside / links.scale_up
    slow = full_bytes * (domains - 1) / domains / inside / links.scale_out
    return (fast + slow) / LINK_EFFICIENCY


def _all_to_all_seconds(
    model: ModelShape, received_bytes: np.ndarray, layout: LayoutGrid, links: Links
) -> np.ndarray:
    """All-to-all: between domains a token is sent once to each domain that it has experts in."""
    group = layout.expert
    inside = _members_in_domain(group, layout.tensor * layout.context, links)
    sends_per_expert = min(MAX_EXPERT_DOMAINS, model.top_k) / max(model.top_k, 1)
    outside = (group - inside) / np.maximum(group - 1, 1)
    fast = received_bytes * (1 - outside) / links.scale_up
    return np.maximum(fast, received_bytes * outside * sends_per_expert / links.scale_out) / LINK_EFFICIENCY


def _context_seconds(
    model: ModelShape, layout: LayoutGrid, links: Links, received_bytes: np.ndarray, compute: np.ndarray
) -> np.ndarray:
    """Keys and values passed around a ring (arXiv:2310.01889), behind attention's own products."""
    seconds = _ring_seconds(received_bytes, layout.context, layout.tensor, links)
    hidden = compute * model.attention_flops / model.flops_per_token
    return np.maximum(EXPOSED_OTHER * seconds, seconds - hidden)


def _fsdp_seconds(
    model: ModelShape, layout: LayoutGrid, links: Links, precision: TrainingPrecision, compute: np.ndarray
) -> np.ndarray:
    dense, experts = _gather_bytes(model, layout, precision)
    inner = layout.tensor * layout.context
    seconds = _ring_seconds(dense, layout.fsdp, inner * layout.expert, links)
    seconds += _ring_seconds(experts, layout.fsdp * layout.expert, inner, links)
    return np.maximum(EXPOSED_OTHER * seconds, seconds - compute)


def _data_seconds(
    model: ModelShape, layout: LayoutGrid, links: Links, precision: TrainingPrecision, compute: np.ndarray
) -> np.ndarray:
    """Hidden by the last micro-batch's backward pass, two thirds of its work."""
    experts, dense, parts = _reduce_bytes(model, layout, precision)
    inner = layout.tensor * layout.context * layout.fsdp
    seconds = _ring_seconds(experts, layout.data, inner * layout.expert, links)
    seconds += _ring_seconds(dense, layout.data * layout.expert, inner, links)
    seconds += _ring_seconds(parts, layout.context, layout.tensor, links)
    return np.maximum(EXPOSED_DATA * seconds, seconds - 2 / 3 * compute / layout.microbatches(model))


def _pipeline_seconds(
    model: ModelShape, layout: LayoutGrid, links: Links, precision: TrainingPrecision, busy: np.ndarray
) -> np.ndarray:
    """(p - 1) / (v m) of the busy time (arXiv:2104.04473), and activations handed on over slow links."""
    bubble = (layout.pipeline - 1) / (layout.virtual * layout.microbatches(model)) * busy
    boundary_bytes = (
        2
        * layout.virtual
        * layout.tokens_per_device(model)
        * model.width
        * precision.activation_bytes
        / layout.tensor
    )
    return bubble + np.where(
        layout.pipeline > 1, EXPOSED_OTHER * boundary_bytes / (links.scale_out * LINK_EFFICIENCY), 0.0
    )


def _elementwise_seconds(
    model: ModelShape, layout: LayoutGrid, chip: Chip, precision: TrainingPrecision
) -> np.ndarray:
    """Values read and written between products: 20 a width for norms, residuals and what is transposed, 8 a
    hidden value, 6 a value of a head, 6 for each copy that is sent to an expert; 8 a word for the loss. Where
    scores are written out, 6 for each (before arXiv:2205.14135). Backward is twice forward."""
    used = model.top_k + model.shared_experts if model.experts else 1
    values = 20 * model.width + 8 * used * model.ffn + 6 * model.heads * model.head_width
    values += 6 * model.top_k * model.width + (
        0 if precision.fused_kernels else 6 * model.heads * model.sequence
    )
    passes = np.where(layout.full_remat | layout.dots_remat, 4, 3)
    values_per_token = (
        values * passes * model.layers / layout.pipeline + 8 * 3 * model.vocabulary / layout.pipeline
    )
    return (
        layout.tokens_per_device(model)
        / layout.tensor
        * values_per_token
        * precision.activation_bytes
        / chip.memory_bandwidth
    )
