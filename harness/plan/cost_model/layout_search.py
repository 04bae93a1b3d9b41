"""The layouts that a model can be trained in on so many chips: the fastest that fits, the runners-up, and why
the others lose."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from harness.core.errors import UserError
from harness.plan.cluster.clusters import GIB, Chip, Links
from harness.plan.cost_model.layouts import REMAT_CODES, Layout, LayoutGrid, enumerate_layouts
from harness.plan.cost_model.memory import MEMORY_LIMIT, DeviceMemory, device_memory
from harness.plan.cost_model.model_size import ModelShape
from harness.plan.cost_model.precision import TrainingPrecision
from harness.plan.cost_model.roofline import Efficiency, StepTerms, step_terms

RUNNERS_UP = 5
REJECTED = 5
PLAUSIBLE_SLOWDOWN = 1.3


@dataclass(frozen=True)
class EvaluatedLayout:
    """One layout with what it costs, uncalibrated."""

    layout: Layout
    seconds: float
    memory: dict[str, float]
    """Bytes of the fullest device, by part."""
    terms: dict[str, float]
    """Seconds, by what they go to."""
    why: str = ""
    """Why it is not the one that is chosen."""

    @property
    def bytes(self) -> float:
        return sum(self.memory.values())


@dataclass(frozen=True)
class LayoutChoice:
    best: EvaluatedLayout
    runners_up: tuple[EvaluatedLayout, ...]
    rejected: tuple[EvaluatedLayout, ...]
    """Layouts that would be faster but do not fit whatever is computed again, and for each axis of the best,
    the fastest without it."""
    num_layouts: int
    num_fitting: int
    typical_seconds: float
    """Median seconds of the layouts that fit and are at most PLAUSIBLE times as slow as the best: what people
    who did not search may have chosen."""


def evaluate_layouts(
    model: ModelShape,
    layouts: LayoutGrid,
    chip: Chip,
    links: Links,
    precision: TrainingPrecision,
    efficiency: Efficiency,
) -> tuple[StepTerms, DeviceMemory]:
    """Seconds and bytes of every layout."""
    return step_terms(model, layouts, chip, links, precision, efficiency), device_memory(
        model, layouts, precision
    )


def search_layouts(
    model: ModelShape,
    devices: int,
    chip: Chip,
    links: Links,
    precision: TrainingPrecision,
    efficiency: Efficiency,
    limit: float = MEMORY_LIMIT,
    mask: Callable[[LayoutGrid], np.ndarray] | None = None,
) -> LayoutChoice:
    """`only`: a mask of the layouts that are wanted. Raises UserError where nothing fits, with the smallest
    that was tried."""
    layouts = enumerate_layouts(model, devices, links.scale_up_domain)
    layouts = layouts.select(mask(layouts)) if mask else layouts
    if not len(layouts):
        raise UserError(
            f"{model.name}: its batch of {model.batch} sequences cannot be shared among {devices} devices:"
            " give fewer devices or a larger scale.batch."
        )
    limit_bytes = limit * chip.memory
    layouts = _least_remat(model, layouts, precision, limit_bytes)
    seconds, bytes_ = evaluate_layouts(model, layouts, chip, links, precision, efficiency)
    fits = bytes_.total <= limit_bytes
    if not fits.any():
        _raise_nothing_fits(model, layouts, bytes_, devices, chip, limit)
    order = np.argsort(seconds.total, kind="stable")
    fitting = order[fits[order]]
    best = evaluated_layout(layouts, seconds, bytes_, int(fitting[0]))
    runners_up = _distinct_layouts(layouts, fitting[1:], fitting[0], RUNNERS_UP)
    faster = order[~fits[order] & (seconds.total[order] < best.seconds)]
    too_large = _distinct_layouts(layouts, faster, fitting[0], REJECTED)
    without_axis = _fastest_without_each_axis(layouts, seconds, fitting)
    rejected = [row for row in (*too_large, *without_axis) if row not in runners_up]

    def with_reason(row: int) -> EvaluatedLayout:
        layout = evaluated_layout(layouts, seconds, bytes_, row)
        return dataclasses.replace(layout, why=_rejection_reason(layout, best, limit_bytes))

    near = seconds.total[fitting]
    usual = float(np.median(near[near <= PLAUSIBLE_SLOWDOWN * best.seconds]))
    return LayoutChoice(
        best,
        tuple(map(with_reason, runners_up)),
        tuple(map(with_reason, rejected)),
        len(layouts),
        len(fitting),
        usual,
    )


def _least_remat(
    model: ModelShape, layouts: LayoutGrid, precision: TrainingPrecision, room: float
) -> LayoutGrid:
    """Each layout with as little computed again as its memory allows: none is faster with more."""
    codes = np.full(len(layouts), len(REMAT_CODES) - 1)
    for code in reversed(range(len(REMAT_CODES) - 1)):
        fits = device_memory(model, layouts.with_remat(code), precision).total <= room
        codes = np.where(fits, code, codes)
    return layouts.with_remat(codes)


def evaluated_layout(
    layouts: LayoutGrid, seconds: StepTerms, bytes_: DeviceMemory, row: int
) -> EvaluatedLayout:
    def parts(of: StepTerms | DeviceMemory) -> dict[str, float]:
        return {field.name: float(getattr(of, field.name)[row]) for field in dataclasses.fields(of)}

    return EvaluatedLayout(layouts.layout_at(row), float(seconds.total[row]), parts(bytes_), parts(seconds))


def _distinct_layouts(layouts: LayoutGrid, rows: np.ndarray, best: int, count: int) -> list[int]:
    """The first rows that differ from the best and from each other in more than micro-batch and turns."""

    def key(row: int) -> tuple[int, ...]:
        names = ("data", "fsdp", "tensor", "expert", "pipeline", "context")
        return tuple(int(getattr(layouts, name)[row]) for name in names)

    axes_so_far, rows_so_far = {key(int(best))}, []
    for row in map(int, rows[:5000]):
        if len(rows_so_far) == count:
            break
        if key(row) not in axes_so_far:
            axes_so_far.add(key(row))
            rows_so_far.append(row)
    return rows_so_far


def _fastest_without_each_axis(layouts: LayoutGrid, seconds: StepTerms, fitting: np.ndarray) -> list[int]:
    """For each axis of the best, the fastest layout that fits without it: what leaving it out would cost."""
    fastest = []
    for axis in ("tensor", "expert", "pipeline", "context", "fsdp", "data"):
        size = getattr(layouts, axis)[fitting]
        if size[0] > 1 and (size == 1).any():
            fastest.append(int(fitting[np.argmax(size == 1)]))
    return list(dict.fromkeys(fastest))


def _rejection_reason(layout: EvaluatedLayout, best: EvaluatedLayout, limit: float) -> str:
    if layout.bytes > limit:
        part = max(layout.memory, key=lambda name: layout.memory[name])
        return (
            f"does not fit: {layout.bytes / GIB:.1f} GiB of {limit / GIB:.1f}, of which {part}"
            f" {layout.memory[part] / GIB:.1f}"
        )
    term = max(layout.terms, key=lambda name: layout.terms[name] - best.terms[name])
    ratio = layout.seconds / best.seconds
    slower = f"{ratio - 1:.1%} slower" if ratio < 2 else f"{ratio:.1f} times as long"
    return f"{slower}: {term} takes {layout.terms[term]:.3g} s for {best.terms[term]:.3g}"


def _raise_nothing_fits(
    model: ModelShape, layouts: LayoutGrid, bytes_: DeviceMemory, devices: int, chip: Chip, limit: float
) -> None:
    row = int(np.argmin(bytes_.total))
    raise UserError(
        f"{model.name} fits nowhere on {devices} x {chip.name}: the leanest of {len(layouts)} layouts"
        f" ({layouts.layout_at(row)}) needs {bytes_.total[row] / GIB:.1f} GiB a device, and {limit:.0%} of its"
        f" memory are {limit * chip.memory / GIB:.1f}: give more devices or shorter sequences."
    )
