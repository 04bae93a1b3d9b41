"""Closed-form seconds of one step by term, over whole grids of layouts.

Overlap: half of the `tensor` collectives with the products beside them, half of the experts' exchanges with
other work; gathers and scatters of `fsdp` with all products; the sum of gradients over `data` with the last
micro-batch's backward pass, but at least a third of it is exposed; the pipeline bubble with nothing.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from harness.config.schema.run import Remat
from harness.estimate.chip_efficiency import EXPERT_SHARE, LOW_PRECISION_SHARES, peak_share
from harness.estimate.clusters import Chip, Links
from harness.estimate.layouts import LayoutGrid
from harness.estimate.memory import parameters_per_device
from harness.estimate.model_size import TRAIN_FLOPS_MULTIPLE, ModelShape

EXPOSED_TENSOR = {True: 0.5, False: 1.0}
"""Exposed share of `tensor` collectives, by TrainingPrecision.fused_kernels."""
EXPOSED_EXPERT = 0.5
"""Exposed share of the experts' exchanges."""
EXPOSED_DATA = 0.3
"""Least exposed share of the sum of gradients."""
EXPOSED_OTHER = 0.1
"""Least exposed share of any other collective that overlaps."""
LINK_EFFICIENCY = 0.8
"""Share of a link's rate that a large collective reaches."""
MAX_EXPERT_DOMAINS = 4
"""Largest number of fast domains that a token's experts are in (arXiv:2412.19437, section 2.1.2)."""
EXPERT_EXCHANGES = 4
"""Exchanges of tokens with experts per layer: there and back, forward and backward."""
STRAGGLER_SPREAD = 0.01
"""Relative spread of a device's step time: the slowest of n is about sqrt(2 ln n) of it behind."""
KERNELS_PER_LAYER = 60
"""Kernels per layer and micro-batch, forward and backward. Assumed."""
LAUNCH_SECONDS = 4e-6
"""Seconds to start one kernel; exposed only where devices wait for it. Assumed."""
OPTIMIZER_BYTES = 28
"""Bytes of memory read and written per parameter that one device updates."""


@dataclass(frozen=True)
class StepTerms:
    """Seconds of a step by term, one entry per layout."""

    compute: np.ndarray
    memory: np.ndarray
    """Norms, gates and residuals: reads and writes between products."""
    tensor: np.ndarray
    context: np.ndarray
    fsdp: np.ndarray
    expert: np.ndarray
    data: np.ndarray
    pipeline: np.ndarray
    """Bubble, and activations handed to the next stage."""
    optimizer: np.ndarray
    straggler: np.ndarray
    launch: np.ndarray
    """Wait for kernels to start, in a step of little work."""

    @property
    def total(self) -> np.ndarray:
        """Return the seconds of the whole step."""
        return sum((getattr(self, field.name) for field in dataclasses.fields(self)), np.zeros(1))


@dataclass(frozen=True)
class Traffic:
    """Bytes that one device receives in a step, one entry per layout."""

    tensor: np.ndarray
    context: np.ndarray
    fsdp: np.ndarray
    expert: np.ndarray
    data: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """Return the bytes over all axes."""
        return self.tensor + self.context + self.fsdp + self.expert + self.data


def step_terms(model: ModelShape, layout: LayoutGrid, chip: Chip, links: Links) -> StepTerms:
    """Return the exposed seconds of each term of a step."""
    traffic = step_traffic(model, layout)
    compute = compute_seconds(model, layout, chip)
    between = _elementwise_seconds(model, layout, chip)
    ring = _ring_seconds(traffic.tensor, layout.tensor, np.ones(len(layout)), links)
    tensor = EXPOSED_TENSOR[model.precision.fused_kernels] * ring
    context = _context_seconds(model, layout, links, traffic.context, compute)
    fsdp = _fsdp_seconds(model, layout, links, compute)
    expert = EXPOSED_EXPERT * _all_to_all_seconds(model, traffic.expert, layout, links)
    data = _data_seconds(model, layout, links, compute)
    busy = compute + between + tensor + context + fsdp + expert
    pipeline = _pipeline_seconds(model, layout, links, busy)
    optimizer = parameters_per_device(model, layout) * OPTIMIZER_BYTES / chip.memory_bandwidth
    behind = STRAGGLER_SPREAD * np.sqrt(2 * np.log(np.maximum(layout.devices, 1)))
    straggler = behind * (busy + pipeline + data)
    # A host starts every kernel of a step, one after the other.
    starts = LAUNCH_SECONDS * KERNELS_PER_LAYER * model.layers / layout.pipeline * layout.microbatches(model)
    launch = np.maximum(0.0, starts - busy - pipeline)
    parts = tensor, context, fsdp, expert, data, pipeline
    return StepTerms(compute, between, *parts, optimizer, straggler, launch)


def hardware_flops(model: ModelShape, layout: LayoutGrid) -> np.ndarray:
    """Return executed FLOPs of a step on all devices: the model's, and those of rematerialisation."""
    extra = [model.flops_per_token / 3, model.attention_flops / 3]
    remats = [layout.has_remat(Remat.full), layout.has_remat(Remat.dots)]
    recomputed = np.select(remats, extra, 0.0)
    return (model.flops_per_token + recomputed) * model.tokens_per_step


def compute_seconds(model: ModelShape, layout: LayoutGrid, chip: Chip) -> np.ndarray:
    """Return the seconds of products: weights in the matmul dtype, attention in 16 bits, experts less
    efficiently. Products that are narrow or of few tokens take as long as the reads of their operands."""
    share, dtype = peak_share(chip.name), model.precision.matmul_dtype
    peak = chip.peak(dtype) * LOW_PRECISION_SHARES.get(dtype, 1.0)
    slow = chip.peak("bf16") if dtype in LOW_PRECISION_SHARES else peak
    dense = model.flops_per_token - model.attention_flops - model.expert_flops
    recompute_factor = np.broadcast_to(hardware_flops(model, layout) / model.step_flops, len(layout))
    tokens = recompute_factor * model.tokens_per_step / layout.devices
    read = operand_bytes(model, layout) * recompute_factor / chip.memory_bandwidth
    attention = tokens * model.attention_flops / (slow * share)
    eight_bit = min(dense, 2.0 * TRAIN_FLOPS_MULTIPLE * model.precision.fp8_parameters)
    fast = chip.peak("fp8") * LOW_PRECISION_SHARES["fp8"] if eight_bit else peak
    plain = np.maximum(tokens * ((dense - eight_bit) / peak + eight_bit / fast) / share, read[0])
    experts = np.maximum(tokens * model.expert_flops / (peak * (share * EXPERT_SHARE)), read[1])
    return attention + plain + experts


def operand_bytes(model: ModelShape, layout: LayoutGrid) -> np.ndarray:
    """Return bytes that one device's products read and write, of dense weights and of routed experts, [2,
    layouts]. Full-width inputs and outputs are not split by tensor; weights are read in each micro-batch."""
    tokens = layout.tokens_per_device(model) * model.layers / layout.pipeline
    inner = (model.heads + 2 * model.kv_heads) * model.head_width
    inner += 3 * max(1, model.shared_experts) * model.ffn
    dense = tokens * (4 * model.width + inner / layout.tensor)
    routed = tokens * model.top_k * (2 * model.width + 3 * model.ffn / layout.tensor)
    passes = layout.microbatches(model) / (layout.tensor * layout.pipeline)
    weights = np.stack([model.dense_parameters * passes, model.expert_parameters / layout.expert * passes])
    return TRAIN_FLOPS_MULTIPLE * model.precision.value_bytes * (np.stack([dense, routed]) + weights)


def step_traffic(model: ModelShape, layout: LayoutGrid) -> Traffic:
    """Return the bytes that one device receives in a step, whether or not they overlap with work."""
    tokens, layers = layout.tokens_per_device(model), model.layers / layout.pipeline
    width_bytes = model.width * model.precision.value_bytes
    full_remat = layout.has_remat(Remat.full)
    sums, exchanges = np.where(full_remat, 6, 4), EXPERT_EXCHANGES * np.where(full_remat, 1.5, 1.0)
    exchange_bytes = exchanges * layers * model.top_k * tokens / layout.tensor * width_bytes
    exchange_bytes = exchange_bytes * (layout.expert - 1) / layout.expert
    return Traffic(
        tensor=sums * layers * 2 * (layout.tensor - 1) / layout.tensor * tokens * width_bytes,
        context=_ring_bytes(model, layout),
        fsdp=_gather_bytes(model, layout).sum(axis=0),
        expert=np.where(model.gathers_expert_weights, 0.0, exchange_bytes),
        data=_reduce_bytes(model, layout).sum(axis=0),
    )


def _ring_bytes(model: ModelShape, layout: LayoutGrid) -> np.ndarray:
    """Return bytes received around a ring: keys and values of the other shards forward, backward, and in
    between with remat, where the first shard comes once for both; then their gradients with the backward
    pass. Sliding windows are ignored."""
    values = 2 * model.kv_heads * model.head_width * model.precision.value_bytes / layout.tensor
    hops = layout.context - 1
    passed = np.where(layout.has_remat(Remat.none), 3 * hops + (hops > 0), 4 * hops)
    return passed * model.layers / layout.pipeline * layout.tokens_per_device(model) * values


def _gather_bytes(model: ModelShape, layout: LayoutGrid) -> np.ndarray:
    """Return bytes received for the weights of one device's layers, [2, layouts]: over fsdp, and for experts
    whose weights are gathered over expert too. Gathered forward and backward in each micro-batch, with
    gradients scattered once in each. `full` remat reuses the backward gather."""
    parameters, group = parameters_per_device(model, layout), layout.fsdp * layout.expert
    experts = model.expert_parameters / (group * layout.tensor * layout.pipeline)
    experts = experts * model.gathers_expert_weights
    over = np.stack([(parameters - experts) * (layout.fsdp - 1), experts * (group - 1)])
    return 3 * layout.microbatches(model) * model.precision.value_bytes * over


def _reduce_bytes(model: ModelShape, layout: LayoutGrid) -> np.ndarray:
    """Return bytes received to sum gradients, [3, layouts]: experts over data, all else over expert too, both
    over the shards of a sequence."""
    shard_bytes = model.precision.value_bytes / (layout.fsdp * layout.tensor * layout.pipeline)
    copies = layout.data * layout.expert
    experts = model.expert_parameters / layout.expert * shard_bytes
    dense = model.dense_parameters * shard_bytes
    sequence = (experts + dense) * (layout.context - 1) / layout.context
    return 2 * np.stack([experts * (layout.data - 1) / layout.data, dense * (copies - 1) / copies, sequence])


def _members_in_domain(group: np.ndarray, stride: np.ndarray, links: Links) -> np.ndarray:
    """Return the members of a group in one fast domain, where neighbours are `stride` devices apart."""
    return np.clip(links.scale_up_domain // stride, 1, group)


def _ring_seconds(num_bytes: np.ndarray, group: np.ndarray, stride: np.ndarray, links: Links) -> np.ndarray:
    """Return the seconds of a gather, scatter or sum that hands `num_bytes` to each device: inside the
    fast domain first, then between domains, where the members of one share the work."""
    inside = _members_in_domain(group, stride, links)
    domains = group / inside
    full_bytes = num_bytes * group / np.maximum(group - 1, 1)
    fast = full_bytes * (inside - 1) / inside / links.scale_up
    slow = full_bytes * (domains - 1) / domains / inside / links.scale_out
    return (fast + slow) / LINK_EFFICIENCY


def _all_to_all_seconds(
    model: ModelShape, num_bytes: np.ndarray, layout: LayoutGrid, links: Links
) -> np.ndarray:
    """Return the seconds of the experts' exchange of `num_bytes`; between domains a token is sent once
    to each domain with its experts."""
    group = layout.expert
    inside = _members_in_domain(group, layout.tensor * layout.context, links)
    sends_per_expert = min(MAX_EXPERT_DOMAINS, model.top_k) / max(model.top_k, 1)
    outside = (group - inside) / np.maximum(group - 1, 1)
    fast = num_bytes * (1 - outside) / links.scale_up
    return np.maximum(fast, num_bytes * outside * sends_per_expert / links.scale_out) / LINK_EFFICIENCY


def _context_seconds(
    model: ModelShape, layout: LayoutGrid, links: Links, num_bytes: np.ndarray, compute: np.ndarray
) -> np.ndarray:
    """Return the exposed seconds of ring attention (arXiv:2310.01889), behind attention's products."""
    seconds = _ring_seconds(num_bytes, layout.context, layout.tensor, links)
    hidden = compute * model.attention_flops / model.flops_per_token
    return np.maximum(EXPOSED_OTHER * seconds, seconds - hidden)


def _fsdp_seconds(model: ModelShape, layout: LayoutGrid, links: Links, compute: np.ndarray) -> np.ndarray:
    dense, experts = _gather_bytes(model, layout)
    inner = layout.tensor * layout.context
    seconds = _ring_seconds(dense, layout.fsdp, inner * layout.expert, links)
    seconds += _ring_seconds(experts, layout.fsdp * layout.expert, inner, links)
    return np.maximum(EXPOSED_OTHER * seconds, seconds - compute)


def _data_seconds(model: ModelShape, layout: LayoutGrid, links: Links, compute: np.ndarray) -> np.ndarray:
    """Return the exposed seconds of the sum of gradients, behind two thirds of the work of the last
    micro-batch (its backward pass)."""
    experts, dense, parts = _reduce_bytes(model, layout)
    inner = layout.tensor * layout.context * layout.fsdp
    seconds = _ring_seconds(experts, layout.data, inner * layout.expert, links)
    seconds += _ring_seconds(dense, layout.data * layout.expert, inner, links)
    seconds += _ring_seconds(parts, layout.context, layout.tensor, links)
    return np.maximum(EXPOSED_DATA * seconds, seconds - 2 / 3 * compute / layout.microbatches(model))


def _pipeline_seconds(model: ModelShape, layout: LayoutGrid, links: Links, busy: np.ndarray) -> np.ndarray:
    """Return (p - 1) / (v m) of the busy time (arXiv:2104.04473), and activations handed over slow links."""
    bubble = (layout.pipeline - 1) / (layout.virtual * layout.microbatches(model)) * busy
    boundary_bytes = 2 * layout.virtual * layout.tokens_per_device(model) * model.width
    boundary_bytes = boundary_bytes * model.precision.value_bytes / layout.tensor
    hand_over = EXPOSED_OTHER * boundary_bytes / (links.scale_out * LINK_EFFICIENCY)
    return bubble + np.where(layout.pipeline > 1, hand_over, 0.0)


def _elementwise_seconds(model: ModelShape, layout: LayoutGrid, chip: Chip) -> np.ndarray:
    """Return the seconds of reads and writes between products. Values: 20 a width for norms, residuals and
    transposes, 8 a hidden value, 6 a value of a head, 6 for each copy sent to an expert; 8 a word for the
    loss. Scores that are written out add 6 each (before arXiv:2205.14135). Backward is twice forward."""
    used, passes = model.experts_per_token, np.where(layout.has_remat(Remat.none), 3, 4)
    scores = 0 if model.precision.fused_kernels else 6 * model.heads * model.sequence
    values = 20 * model.width + 8 * used * model.ffn + 6 * model.heads * model.head_width
    values += 6 * model.top_k * model.width + scores
    total = values * passes * model.layers / layout.pipeline + 8 * 3 * model.vocabulary / layout.pipeline
    tokens = layout.tokens_per_device(model) / layout.tensor
    return tokens * total * model.precision.value_bytes / chip.memory_bandwidth
