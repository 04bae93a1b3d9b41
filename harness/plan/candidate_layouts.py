"""Layouts that a search evaluates: every way to split a model over devices that could be the fastest."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from harness.estimate.layout_limits import LayoutLimits
from harness.estimate.layouts import LayoutGrid, divisors
from harness.estimate.model_size import ModelShape

MAX_SPLIT = 64
"""Largest number of shards of a product, of a sequence, or of stages."""
MAX_RING = 4
"""Largest number of shards of a sequence that is searched for a run of the harness. Its ring is unrolled: the
step of 10T parameters takes 3 s to lower in whole sequences, 33 s in four shards."""
SHARD_TOKENS = 1024
"""Fewest tokens of a shard of a sequence."""


def enumerate_layouts(model: ModelShape, devices: int, fast_domain: int) -> LayoutGrid:
    """Return every layout worth evaluating on at most `devices` devices, without remat. Axes divide what they
    split, tensor stays in a fast domain, and the batch is split as often as the other devices allow. A run of
    the harness gets what it can be trained in, and keeps what its config has chosen (`ModelShape.limits`)."""
    rows = np.concatenate([np.empty((0, 9), np.int64), *_layout_rows(model, devices, fast_domain)])
    return LayoutGrid(*rows.T)


def _layout_rows(model: ModelShape, devices: int, fast_domain: int) -> Iterator[np.ndarray]:
    """Yield rows in the order of a grid's columns, for each way to split a sequence's work."""
    tensors = [t for t in divisors(model.heads) if t <= min(fast_domain, MAX_SPLIT)]
    contexts = [
        n
        for n in divisors(MAX_SPLIT)
        if n == 1 or (model.sequence % n == 0 and model.sequence // n >= SHARD_TOKENS)
    ]
    if model.limits:
        contexts = [n for n in contexts if n <= MAX_RING]
    splits = _sizes(model, "tensor", tensors), _sizes(model, "context", contexts), _pipeline_stages(model)
    for tensor, context, (pipeline, virtual) in product(*splits):
        if model.limits and context > 1 and pipeline > 1:
            continue  # refused by models.execution.pipeline
        parts = devices // (tensor * context * pipeline)
        rows = _most_replicas(model, parts, pipeline)
        if len(rows):
            data, fsdp, expert, microbatch = rows.T
            columns = data, fsdp, tensor, expert, pipeline, context, microbatch, virtual, 0
            yield np.stack(np.broadcast_arrays(*columns), axis=1)


def _sizes(model: ModelShape, axis: str, usual: Sequence[int]) -> Sequence[int]:
    """Return the sizes to try of an axis: the usual ones as far as the model allows, or the config's."""
    if model.limits is None:
        return usual
    config_size = dict(model.limits.axes).get(axis)
    return [n for n in (usual if config_size is None else [config_size]) if model.limits.allows(axis, n)]


def _most_replicas(model: ModelShape, parts: int, pipeline: int) -> np.ndarray:
    """Return the splits of the batch over as many of `parts` devices as can share it. A pipeline wants as
    many micro-batches as it has stages."""
    for replicas in reversed(divisors(model.batch)):
        if replicas <= parts and model.batch // replicas >= pipeline:
            rows = _batch_splits(replicas, model.batch, model.experts, pipeline, model.limits)
            if len(rows):
                return rows
    return np.empty((0, 4), np.int64)


@functools.cache
def _batch_splits(
    replicas: int, batch: int, experts: int, pipeline: int, limits: LayoutLimits | None
) -> np.ndarray:
    """Return (data, fsdp, expert, microbatch), one row for each way to split the batch over the replicas."""

    def allowed(axis: str, size: int) -> bool:
        return limits is None or limits.allows(axis, size)

    rows = [
        (replicas // expert // fsdp, fsdp, expert, microbatch)
        for expert in (divisors(experts) if experts else [1])
        if replicas % expert == 0 and allowed("expert", expert)
        for fsdp in _thin_out([n for n in divisors(replicas // expert) if allowed("fsdp", n)])
        if allowed("data", replicas // expert // fsdp)
        for microbatch in _microbatch_sizes(batch // replicas, pipeline, limits)
    ]
    return np.array(rows, np.int64).reshape(-1, 4)


def _microbatch_sizes(sequences: int, pipeline: int, limits: LayoutLimits | None) -> list[int]:
    """Return the sizes of a micro-batch to try, in sequences of one replica."""
    sizes = sorted({1, 2, 4, min(sequences, MAX_SPLIT)})
    if limits is not None and limits.microbatches is not None:
        sizes = [sequences // limits.microbatches] if sequences % limits.microbatches == 0 else []
    # Stages of ours start with equally many micro-batches each.
    group = pipeline if limits is not None else 1
    return [size for size in sizes if sequences % (size * group) == 0]


def _pipeline_stages(model: ModelShape) -> list[tuple[int, int]]:
    """Return (pipeline, virtual) pairs: stages that divide the layers, passed in one turn or most turns. The
    harness trains in one turn."""
    stages = []
    for pipeline in _sizes(model, "pipeline", [p for p in divisors(model.layers) if p <= MAX_SPLIT]):
        turns = [1] if pipeline == 1 else [v for v in divisors(model.layers // pipeline) if v <= 8]
        turns = turns if model.limits is None else [1]
        stages += [(pipeline, v) for v in sorted({turns[0], turns[-1]})]
    return stages


def _thin_out(values: Sequence[int], count: int = 8) -> Sequence[int]:
    """Return at most `count` of the values, evenly over their order, with the first and the last."""
    if len(values) <= count:
        return values
    return [values[round(i * (len(values) - 1) / (count - 1))] for i in range(count)]
