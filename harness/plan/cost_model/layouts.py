"""How a step is laid out over devices: one layout, or thousands of them as columns of numpy arrays."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from harness.config.schema.run import Remat
from harness.core.errors import UserError
from harness.plan.cost_model.model_size import ModelShape

REMAT_CODES = (Remat.none, Remat.dots, Remat.full)
"""In the order of their codes in a grid."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way to share a step among `devices`. The batch is split over data, fsdp and expert."""

    data: int = 1
    """Copies that hold everything and add up their gradients."""
    fsdp: int = 1
    """Parts that each weight and its optimizer state is split in, and gathered from for use."""
    tensor: int = 1
    """Parts that each product is split in; sequence-parallel between products (arXiv:2205.05198)."""
    expert: int = 1
    """Parts that the routed experts are split in; all other weights are whole on each."""
    pipeline: int = 1
    """Parts that the layers are split in."""
    context: int = 1
    """Parts that each sequence is split in."""
    microbatch: int = 1
    """Sequences of one part of the batch that pass at once."""
    virtual: int = 1
    """Turns that a micro-batch takes through the pipeline (interleaved, arXiv:2104.04473)."""
    remat: Remat = Remat.none

    @property
    def devices(self) -> int:
        return self.data * self.fsdp * self.tensor * self.expert * self.pipeline * self.context

    def __str__(self) -> str:
        axes = ("data", "fsdp", "tensor", "expert", "pipeline", "context")
        split = [f"{axis} {getattr(self, axis)}" for axis in axes if getattr(self, axis) > 1]
        turns = f", {self.virtual} turns" if self.virtual > 1 else ""
        passes = f"micro-batch {self.microbatch}{turns}, remat {self.remat.value}"
        return f"{' x '.join(split) or 'one device'}, {passes}"


@dataclass(frozen=True)
class LayoutGrid:
    """Layouts as columns, one entry each: int64, `remat` by its index in REMATS."""

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
        """Parts of the batch."""
        return self.data * self.fsdp * self.expert

    @property
    def devices(self) -> np.ndarray:
        return self.replicas * self.tensor * self.pipeline * self.context

    @property
    def no_remat(self) -> np.ndarray:
        return self.remat == REMAT_CODES.index(Remat.none)

    @property
    def full_remat(self) -> np.ndarray:
        return self.remat == REMAT_CODES.index(Remat.full)

    @property
    def dots_remat(self) -> np.ndarray:
        return self.remat == REMAT_CODES.index(Remat.dots)

    def sequences_per_replica(self, model: ModelShape) -> np.ndarray:
        """Of one part of the batch, a step; a fraction where the batch has fewer than parts."""
        return model.batch / self.replicas

    def microbatches(self, model: ModelShape) -> np.ndarray:
        """Passes a step; at least one."""
        return np.maximum(1.0, self.sequences_per_replica(model) / self.microbatch)

    def tokens_per_device(self, model: ModelShape) -> np.ndarray:
        """Tokens that one device's layers see in a step."""
        return model.tokens_per_step / self.replicas / self.context

    def select(self, rows: np.ndarray) -> LayoutGrid:
        """Some of the rows, by mask or index."""
        return LayoutGrid(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))

    def layout_at(self, row: int) -> Layout:
        values = {field.name: int(getattr(self, field.name)[row]) for field in dataclasses.fields(self)}
        return Layout(**{**values, "remat": REMAT_CODES[values["remat"]]})

    def with_remat(self, codes: np.ndarray | int) -> LayoutGrid:
        """The same with other remat, by index in REMATS."""
        return dataclasses.replace(self, remat=np.broadcast_to(codes, self.remat.shape))

    @staticmethod
    def from_layouts(layouts: Iterable[Layout]) -> LayoutGrid:
        names = [field.name for field in dataclasses.fields(LayoutGrid)[:-1]]
        return _columns(
            [
                [*(getattr(layout, name) for name in names), REMAT_CODES.index(layout.remat)]
                for layout in layouts
            ]
        )


def check_layout(model: ModelShape, layout: Layout) -> None:
    """Raises UserError for the first axis that does not divide what it splits."""
    if min(dataclasses.astuple(layout)[:-1]) < 1:
        raise UserError(f"layout {layout} has an axis below 1: every axis is 1 or more.")
    if layout.expert > 1 and not model.experts:
        raise UserError(f"expert={layout.expert} splits experts, but {model.name} has none: set expert=1.")
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
            raise UserError(
                f"{axis} = {size} does not divide {size_name} = {total} of {model.name}: lower {axis}, or choose"
                f" {size_name} as a multiple of it."
            )


def enumerate_layouts(model: ModelShape, devices: int, fast_domain: int) -> LayoutGrid:
    """Every layout worth a look on at most so many devices, without remat: each axis divides what it splits,
    tensor stays in a fast domain, and the batch is split as often as the devices that are left allow."""
    rows = np.concatenate([np.empty((0, 9), np.int64), *_layout_rows(model, devices, fast_domain)])
    return LayoutGrid(*rows.T)


def _columns(rows: Sequence[Sequence[int]]) -> LayoutGrid:
    names = [field.name for field in dataclasses.fields(LayoutGrid)]
    columns = np.asarray(rows, np.int64).reshape(-1, len(names)).T
    return LayoutGrid(**dict(zip(names, columns, strict=True)))


def _layout_rows(model: ModelShape, devices: int, fast_domain: int) -> Iterator[np.ndarray]:
    """Rows in the order of a grid's columns, for each way to share a sequence's work."""
    replicas = divisors(model.batch)
    tensors = [t for t in divisors(model.heads) if t <= min(fast_domain, 64)]
    contexts = [
        c for c in (1, 2, 4, 8, 16, 32, 64) if model.sequence % c == 0 and model.sequence // c >= 1024
    ]
    for tensor, context, (pipeline, virtual) in product(
        tensors, contexts or [1], _pipeline_stages(model.layers)
    ):
        parts = devices // (tensor * context * pipeline)
        # A pipeline wants as many micro-batches as it has stages.
        replicas_used = max((r for r in replicas if r <= parts and model.batch // r >= pipeline), default=0)
        if replicas_used:
            batched = _batch_splits(replicas_used, model.batch, model.experts)
            column = np.ones(len(batched), np.int64)
            data, fsdp, expert, microbatch = batched.T
            inner = (
                tensor * column,
                expert,
                pipeline * column,
                context * column,
                microbatch,
                virtual * column,
            )
            yield np.stack([data, fsdp, *inner, 0 * column], axis=1)


@functools.cache
def _batch_splits(replicas: int, batch: int, experts: int) -> np.ndarray:
    """(data, fsdp, expert, microbatch), one row for each way to split the batch in so many parts."""
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
    """(pipeline, virtual): stages that divide the layers, each passed in one turn or as many as are usual."""
    stages = []
    for pipeline in (p for p in divisors(layers) if p <= 64):
        turns = [1] if pipeline == 1 else [v for v in divisors(layers // pipeline) if v <= 8]
        stages += [(pipeline, v) for v in sorted({turns[0], turns[-1]})]
    return stages


def _thin_out(values: Sequence[int], count: int = 8) -> Sequence[int]:
    """At most so many of them, evenly over their order, first and last among them."""
    if len(values) <= count:
        return values
    return [values[round(i * (len(values) - 1) / (count - 1))] for i in range(count)]


def divisors(n: int) -> list[int]:
    """All divisors of n, rising."""
    small = [d for d in range(1, int(n**0.5) + 1) if n % d == 0]
    return sorted({*small, *(n // d for d in small)})
