"""Layouts that the harness can train a run in, and what of them its config has chosen already."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from harness.config.schema.cluster import MeshConfig
from harness.config.schema.run import ComputeConfig, Config, Remat
from harness.records.run.provenance import Facts

MESH_AXES = tuple(field.name for field in dataclasses.fields(MeshConfig))
"""Axes of a config's mesh."""


@dataclass(frozen=True)
class LayoutLimits:
    """Limits of a layout search. What a config leaves at its default is free."""

    divisors: tuple[tuple[str, int], ...]
    """Number that the size of each axis divides (`Facts.divisors`); an axis without one is not split, but for
    `data`, which splits the batch alone."""
    axes: tuple[tuple[str, int], ...] = ()
    """Sizes of the mesh axes that the config sets."""
    microbatches: int | None = None
    """Micro-batches of a step that the config sets."""
    remat: Remat | None = None
    """Remat that the config sets."""

    @property
    def fixed(self) -> tuple[str, ...]:
        """Return what the config sets, such as `mesh.tensor=2`."""
        keys = [f"mesh.{axis}={size}" for axis, size in self.axes]
        keys += [] if self.microbatches is None else [f"compute.microbatches={self.microbatches}"]
        return (*keys, *([] if self.remat is None else [f"compute.remat={self.remat.value}"]))

    def divides(self, axis: str, size: int) -> bool:
        """Return whether the harness can split a run over so many shards."""
        divisor = 0 if axis == "data" else dict(self.divisors).get(axis, 1)
        return divisor % size == 0

    def allows(self, axis: str, size: int) -> bool:
        """Return whether an axis may have this size: it can be trained, and the config chose no other."""
        return size == dict(self.axes).get(axis, size) and self.divides(axis, size)


def layout_limits(config: Config, facts: Facts) -> LayoutLimits:
    """Return the limits of one of our own runs."""
    sizes, default = dataclasses.asdict(config.mesh), ComputeConfig()
    compute = config.compute
    return LayoutLimits(
        divisors=tuple(facts.divisors.items()),
        axes=tuple((axis, sizes[axis]) for axis in MESH_AXES if sizes[axis] > 1),
        microbatches=None if compute.microbatches == default.microbatches else compute.microbatches,
        remat=None if compute.remat is default.remat else compute.remat,
    )
