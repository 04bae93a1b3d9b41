"""Layouts of a step over devices: one layout, or thousands of them as columns of numpy arrays."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from harness.config.schema.run import Config, Remat
from harness.core.errors import UserError
from harness.estimate.model_size import ModelShape

AXES = ("data", "fsdp", "tensor", "expert", "pipeline", "context")
"""Axes that devices are split over."""
REMAT_CODES = (Remat.none, Remat.dots, Remat.full)
"""Remat in the order of its codes in a grid."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Way to split a step over `devices`. The batch is split over data, fsdp and expert."""

    data: int = 1
    """Number of copies that hold everything and sum their gradients."""
    fsdp: int = 1
    """Number of shards of each weight and its optimizer state; weights are gathered for use."""
    tensor: int = 1
    """Number of shards of each product; sequence-parallel between products (arXiv:2205.05198)."""
    expert: int = 1
    """Number of shards of the routed experts; every shard has all other weights."""
    pipeline: int = 1
    """Number of pipeline stages that the layers are split into."""
    context: int = 1
    """Number of shards of each sequence."""
    microbatch: int = 1
    """Sequences of one replica's batch in a single pass."""
    virtual: int = 1
    """Turns of a micro-batch through the pipeline (interleaved, arXiv:2104.04473)."""
    remat: Remat = Remat.none

    @property
    def devices(self) -> int:
        """Return the number of devices."""
        return self.data * self.fsdp * self.tensor * self.expert * self.pipeline * self.context

    def __str__(self) -> str:
        split = [f"{axis} {getattr(self, axis)}" for axis in AXES if getattr(self, axis) > 1]
        turns = f", {self.virtual} turns" if self.virtual > 1 else ""
        passes = f"micro-batch {self.microbatch}{turns}, remat {self.remat.value}"
        return f"{' x '.join(split) or 'one device'}, {passes}"


@dataclass(frozen=True)
class LayoutGrid:
    """Layouts as columns, one entry each: int64, `remat` by its index in REMAT_CODES."""

    data: np.ndarray
    fsdp: np.ndarray
    tensor: np.ndarray
    expert: np.ndarray
    pipeline: np.ndarray
    context: np.ndarray
    microbatch: np.ndarray
    virtual: np.ndarray
    remat: np.ndarray

    def __len__(self) -> int:
        return len(self.data)

    @property
    def replicas(self) -> np.ndarray:
        """Return the number of shards of the batch."""
        return self.data * self.fsdp * self.expert

    @property
    def devices(self) -> np.ndarray:
        """Return the number of devices."""
        return self.replicas * self.tensor * self.pipeline * self.context

    def has_remat(self, remat: Remat) -> np.ndarray:
        """Return a mask of the layouts with this remat."""
        return self.remat == REMAT_CODES.index(remat)

    def sequences_per_replica(self, model: ModelShape) -> np.ndarray:
        """Return sequences of one replica per step; a fraction if replicas outnumber sequences."""
        return model.batch / self.replicas

    def microbatches(self, model: ModelShape) -> np.ndarray:
        """Return passes per step, at least one."""
        return np.maximum(1.0, self.sequences_per_replica(model) / self.microbatch)

    def tokens_per_device(self, model: ModelShape) -> np.ndarray:
        """Return the tokens per step in the layers of one device."""
        return model.tokens_per_step / self.replicas / self.context

    def select(self, rows: np.ndarray) -> LayoutGrid:
        """Return some of the rows, by mask or index."""
        return LayoutGrid(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))

    def layout_at(self, row: int) -> Layout:
        """Return the layout of one row."""
        values = {field.name: int(getattr(self, field.name)[row]) for field in dataclasses.fields(self)}
        return Layout(**{**values, "remat": REMAT_CODES[values["remat"]]})

    def with_remat(self, codes: np.ndarray | int) -> LayoutGrid:
        """Return the same layouts with other remat, by index in REMAT_CODES."""
        return dataclasses.replace(self, remat=np.broadcast_to(codes, self.remat.shape))

    @staticmethod
    def from_layouts(layouts: Iterable[Layout]) -> LayoutGrid:
        """Return a grid with one row per layout."""
        rows = [(*dataclasses.astuple(layout)[:-1], REMAT_CODES.index(layout.remat)) for layout in layouts]
        return LayoutGrid(*np.asarray(rows, np.int64).reshape(-1, len(dataclasses.fields(LayoutGrid))).T)


def config_layout(config: Config) -> Layout:
    """Return the layout of a config: its mesh, micro-batches and remat."""
    mesh, compute = config.mesh, config.compute
    parts = mesh.data * mesh.fsdp * mesh.expert * compute.microbatches
    microbatch = max(1, config.scale.batch // parts)
    return Layout(**dataclasses.asdict(mesh), microbatch=microbatch, remat=compute.remat)


def check_layout(model: ModelShape, layout: Layout) -> None:
    """Check that every axis divides what it splits. Raises UserError for the first that does not."""
    if min(dataclasses.astuple(layout)[:-1]) < 1:
        raise UserError(f"layout {layout} has an axis below 1. Every axis must be 1 or more.")
    if layout.expert > 1 and not model.experts:
        raise UserError(f"expert={layout.expert} splits experts, but {model.name} has none. Set expert=1.")
    parts = layout.data * layout.fsdp * layout.expert * layout.microbatch
    splits = {
        "tensor": (layout.tensor, "heads", model.heads),
        "pipeline x virtual": (layout.pipeline * layout.virtual, "layers", model.layers),
        "expert": (layout.expert, "experts", model.experts or 1),
        "context": (layout.context, "sequence", model.sequence),
        "data x fsdp x expert x microbatch": (parts, "batch", model.batch),
    }
    for axis, (size, size_name, total) in splits.items():
        if total % size:
            trouble = f"{axis} = {size} does not divide {size_name} = {total} of {model.name}"
            raise UserError(f"{trouble}. Lower {axis}, or choose {size_name} as a multiple of it.")


def enumerate_layouts(model: ModelShape, devices: int, fast_domain: int) -> LayoutGrid:
    """Return every layout worth evaluating on at most `devices` devices, without remat. Axes divide what they
    split, tensor stays in a fast domain, and the batch is split as often as the other devices allow."""
    rows = np.concatenate([np.empty((0, 9), np.int64), *_layout_rows(model, devices, fast_domain)])
    return LayoutGrid(*rows.T)


def _layout_rows(model: ModelShape, devices: int, fast_domain: int) -> Iterator[np.ndarray]:
    """Yield rows in the order of a grid's columns, for each way to split a sequence's work."""
    replicas = divisors(model.batch)
    tensors = [t for t in divisors(model.heads) if t <= min(fast_domain, 64)]
    contexts = [
        n for n in divisors(64) if n == 1 or (model.sequence % n == 0 and model.sequence // n >= 1024)
    ]
    for tensor, context, (pipeline, virtual) in product(tensors, contexts, _pipeline_stages(model.layers)):
        parts = devices // (tensor * context * pipeline)
        # A pipeline wants as many micro-batches as it has stages.
        replicas_used = max((r for r in replicas if r <= parts and model.batch // r >= pipeline), default=0)
        if replicas_used:
            data, fsdp, expert, microbatch = _batch_splits(replicas_used, model.batch, model.experts).T
            columns = data, fsdp, tensor, expert, pipeline, context, microbatch, virtual, 0
            yield np.stack(np.broadcast_arrays(*columns), axis=1)


@functools.cache
def _batch_splits(replicas: int, batch: int, experts: int) -> np.ndarray:
    """Return (data, fsdp, expert, microbatch), one row for each way to split the batch over the replicas."""
    rows = [
        (replicas // expert // fsdp, fsdp, expert, microbatch)
        for expert in (divisors(experts) if experts else [1])
        if replicas % expert == 0
        for fsdp in _thin_out(divisors(replicas // expert))
        for microbatch in sorted({1, 2, 4, min(batch // replicas, 64)})
        if (batch // replicas) % microbatch == 0
    ]
    return np.array(rows, np.int64)


def _pipeline_stages(layers: int) -> list[tuple[int, int]]:
    """Return (pipeline, virtual) pairs: stages that divide the layers, passed in one turn or most turns."""
    stages = []
    for pipeline in (p for p in divisors(layers) if p <= 64):
        turns = [1] if pipeline == 1 else [v for v in divisors(layers // pipeline) if v <= 8]
        stages += [(pipeline, v) for v in sorted({turns[0], turns[-1]})]
    return stages


def _thin_out(values: Sequence[int], count: int = 8) -> Sequence[int]:
    """Return at most `count` of the values, evenly over their order, with the first and the last."""
    if len(values) <= count:
        return values
    return [values[round(i * (len(values) - 1) / (count - 1))] for i in range(count)]


def divisors(n: int) -> list[int]:
    """Return all divisors of n, rising."""
    small = [d for d in range(1, int(n**0.5) + 1) if n % d == 0]
    return sorted({*small, *(n // d for d in small)})
