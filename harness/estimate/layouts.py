"""Layouts of a step over devices: one layout, or thousands of them as columns of numpy arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from harness.config.schema.cluster import MeshConfig
from harness.config.schema.run import Config, Remat
from harness.core.errors import UserError
from harness.estimate.layout_limits import MESH_AXES
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


def num_microbatches(layout: Layout, batch: int) -> int:
    """Return the sequential parts of a batch of so many sequences."""
    return max(1, batch // (layout.data * layout.fsdp * layout.expert * layout.microbatch))


def layout_overrides(layout: Layout, batch: int) -> tuple[str, ...]:
    """Return the overrides of a sweep that trains in a layout, with a batch of so many sequences."""
    mesh = [f"mesh.{axis}={getattr(layout, axis)}" for axis in MESH_AXES]
    microbatches = num_microbatches(layout, batch)
    return (*mesh, f"compute.microbatches={microbatches}", f"compute.remat={layout.remat.value}")


def with_layout(config: Config, layout: Layout) -> Config:
    """Return a config with a layout's mesh, micro-batches and remat."""
    mesh = MeshConfig(**{axis: getattr(layout, axis) for axis in MESH_AXES})
    microbatches = num_microbatches(layout, config.scale.batch)
    compute = dataclasses.replace(config.compute, remat=layout.remat, microbatches=microbatches)
    return dataclasses.replace(config, mesh=mesh, compute=compute)


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


def divisors(n: int) -> list[int]:
    """Return all divisors of n, rising."""
    small = [d for d in range(1, int(n**0.5) + 1) if n % d == 0]
    return sorted({*small, *(n // d for d in small)})
