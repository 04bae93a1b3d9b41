"""Search for the fastest layout that fits, the runners-up, and why the others lose."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from harness.core.errors import UserError
from harness.core.number_format import format_bytes
from harness.estimate.clusters import GIB, Chip, Links
from harness.estimate.layouts import AXES, REMAT_CODES, Layout, LayoutGrid
from harness.estimate.memory import MEMORY_LIMIT, DeviceMemory, device_memory
from harness.estimate.model_size import ModelShape
from harness.estimate.roofline import StepTerms, step_terms
from harness.estimate.ways_to_fit import layout_memory, ways_text
from harness.plan.candidate_layouts import enumerate_layouts
from harness.records.run.save_copy import save_copy_bytes

RUNNERS_UP = 5
"""Number of runners-up that the search returns."""
REJECTED = 5
"""Number of faster layouts without room that the search returns."""
PLAUSIBLE_SLOWDOWN = 1.3
"""Factor on the best layout's seconds up to which people who did not search may have chosen a layout."""


@dataclass(frozen=True)
class EvaluatedLayout:
    """Layout with its memory and seconds, uncalibrated."""

    layout: Layout
    seconds: float
    memory: dict[str, float]
    """Bytes of the fullest device, by part."""
    terms: dict[str, float]
    """Seconds by term."""
    why: str = ""
    """Reason why another layout was chosen."""

    @property
    def bytes(self) -> float:
        """Return the bytes of the fullest device."""
        return sum(self.memory.values())


@dataclass(frozen=True)
class LayoutChoice:
    """The best layout, and those that were rejected."""

    best: EvaluatedLayout
    runners_up: tuple[EvaluatedLayout, ...]
    rejected: tuple[EvaluatedLayout, ...]
    """Faster layouts that fit with no remat, and for each axis of the best, the fastest layout without it."""
    typical_seconds: float
    """Median seconds of the layouts that fit and take at most PLAUSIBLE_SLOWDOWN times the best."""


def search_layouts(
    model: ModelShape,
    devices: int,
    chip: Chip,
    links: Links,
    limit: float = MEMORY_LIMIT,
) -> LayoutChoice:
    """Return the fastest layout that fits on at most `devices` chips. Raises UserError if none fits, with the
    smallest that was tried."""
    layouts = enumerate_layouts(model, devices, links.scale_up_domain)
    if not len(layouts):
        raise UserError(_no_layout(model, devices))
    limit_bytes = limit * chip.memory
    layouts = _least_remat(model, layouts, limit_bytes)
    seconds, memory = step_terms(model, layouts, chip, links), device_memory(model, layouts)
    fits = memory.total <= limit_bytes
    if not fits.any():
        smallest = layouts.layout_at(int(np.argmin(memory.total)))
        raise UserError(_fits_nowhere(model, smallest, len(layouts), chip, devices, limit_bytes))
    order = np.argsort(seconds.total, kind="stable")
    fitting = order[fits[order]]
    best = evaluated_layout(layouts, seconds, memory, int(fitting[0]), limit_bytes)
    runners_up = _distinct_layouts(layouts, fitting[1:], fitting[0], RUNNERS_UP)
    faster = order[~fits[order] & (seconds.total[order] < best.seconds)]
    too_large = _distinct_layouts(layouts, faster, fitting[0], REJECTED)
    without_axis = _fastest_without_each_axis(layouts, seconds, fitting)
    rejected = [row for row in (*too_large, *without_axis) if row not in runners_up]

    def with_reason(row: int) -> EvaluatedLayout:
        layout = evaluated_layout(layouts, seconds, memory, row, limit_bytes)
        return dataclasses.replace(layout, why=_rejection_reason(layout, best, limit_bytes))

    near = seconds.total[fitting]
    typical = float(np.median(near[near <= PLAUSIBLE_SLOWDOWN * best.seconds]))
    return LayoutChoice(best, tuple(map(with_reason, runners_up)), tuple(map(with_reason, rejected)), typical)


def _fits_nowhere(
    model: ModelShape, smallest: Layout, num_layouts: int, chip: Chip, devices: int, limit: float
) -> str:
    """Return why no layout fits. Where the config chose parts of the layout, others may."""
    fixed = model.limits.fixed if model.limits else ()
    with_fixed = f" with {', '.join(fixed)} of its config" if fixed else ""
    need = format_bytes(sum(layout_memory(model, smallest).values()))
    return (
        f"{model.name} fits nowhere on {devices} x {chip.name}{with_fixed}: the smallest of {num_layouts}"
        f" layouts ({smallest}) needs {need} a device, but a plan may use {format_bytes(limit)}"
        f" ({MEMORY_LIMIT:.0%}). {ways_text(model, smallest, limit, devices)}"
    )


def _no_layout(model: ModelShape, devices: int) -> str:
    batch = f"{model.name}: its batch of {model.batch} sequences cannot be split over {devices} devices"
    if model.limits is None or not model.limits.fixed:
        return f"{batch}. Give fewer devices or a larger scale.batch."
    fixed = ", ".join(model.limits.fixed)
    return f"{batch} with {fixed} of its config. Leave one of these out, or choose numbers that divide."


def _least_remat(model: ModelShape, layouts: LayoutGrid, limit: float) -> LayoutGrid:
    """Return each layout with as little remat as its memory allows, since more is never faster; with that of
    the config if it chooses one."""
    if model.limits is not None and model.limits.remat is not None:
        return layouts.with_remat(REMAT_CODES.index(model.limits.remat))
    codes = np.full(len(layouts), len(REMAT_CODES) - 1)
    for code in reversed(range(len(REMAT_CODES) - 1)):
        fits = device_memory(model, layouts.with_remat(code)).total <= limit
        codes = np.where(fits, code, codes)
    return layouts.with_remat(codes)


def evaluated_layout(
    grid: LayoutGrid, seconds: StepTerms, memory: DeviceMemory, row: int, limit: float
) -> EvaluatedLayout:
    """Return one row of a grid with its seconds and bytes. Where `limit` bytes have room for it, the copy of
    the state that is saved is a part of the memory, as in training."""

    def parts(columns: StepTerms | DeviceMemory) -> dict[str, float]:
        return {field.name: float(getattr(columns, field.name)[row]) for field in dataclasses.fields(columns)}

    size = parts(memory)
    copy = save_copy_bytes(size["weights"] + size["optimizer"], sum(size.values()), limit)
    size |= {"copy": copy} if copy else {}
    return EvaluatedLayout(grid.layout_at(row), float(seconds.total[row]), size, parts(seconds))


def _distinct_layouts(layouts: LayoutGrid, rows: np.ndarray, best: int, count: int) -> list[int]:
    """Return the first rows that differ from the best and each other in more than micro-batch and turns."""

    def key(row: int) -> tuple[int, ...]:
        return tuple(int(getattr(layouts, axis)[row]) for axis in AXES)

    axes_so_far, rows_so_far = {key(int(best))}, []
    for row in map(int, rows[:5000]):
        if len(rows_so_far) == count:
            break
        if key(row) not in axes_so_far:
            axes_so_far.add(key(row))
            rows_so_far.append(row)
    return rows_so_far


def _fastest_without_each_axis(layouts: LayoutGrid, seconds: StepTerms, fitting: np.ndarray) -> list[int]:
    """Return for each axis of the best the fastest layout that fits without it."""
    fastest = []
    for axis in ("tensor", "expert", "pipeline", "context", "fsdp", "data"):
        size = getattr(layouts, axis)[fitting]
        if size[0] > 1 and (size == 1).any():
            fastest.append(int(fitting[np.argmax(size == 1)]))
    return list(dict.fromkeys(fastest))


def _rejection_reason(layout: EvaluatedLayout, best: EvaluatedLayout, limit: float) -> str:
    if layout.bytes > limit:
        part = max(layout.memory, key=lambda name: layout.memory[name])
        total, largest = f"{layout.bytes / GIB:.1f}", f"{layout.memory[part] / GIB:.1f}"
        return f"does not fit: {total} GiB of {limit / GIB:.1f}, of which {part} {largest}"
    term = max(layout.terms, key=lambda name: layout.terms[name] - best.terms[name])
    ratio = layout.seconds / best.seconds
    slower = f"{ratio - 1:.1%} slower" if ratio < 2 else f"{ratio:.1f} times as long"
    return f"{slower}: {term} takes {layout.terms[term]:.3g} s for {best.terms[term]:.3g}"
