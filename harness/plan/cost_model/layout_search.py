"""The layouts that a model can be trained in on so many chips: the fastest that fits, the runners-up, and why
the others lose."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from harness.core.errors import UserError
from harness.plan.cluster.clusters import GIB, Chip, Links
from harness.plan.cost_model.layouts import REMATS, Grid, Layout, grid
from harness.plan.cost_model.memory import LIMIT, Memory, memory
from harness.plan.cost_model.model_size import ModelShape
from harness.plan.cost_model.precision import Recipe
from harness.plan.cost_model.roofline import Efficiency, Terms, terms

RUNNERS_UP = 5
REJECTED = 5
PLAUSIBLE = 1.3


@dataclass(frozen=True)
class Candidate:
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
class Choice:
    best: Candidate
    runners_up: tuple[Candidate, ...]
    rejected: tuple[Candidate, ...]
    """Layouts that would be faster but do not fit whatever is computed again, and for each axis of the best,
    the fastest without it."""
    looked_at: int
    fitting: int
    usual: float
    """Median seconds of the layouts that fit and are at most PLAUSIBLE times as slow as the best: what people
    who did not search may have chosen."""


def evaluate(
    model: ModelShape, layouts: Grid, chip: Chip, links: Links, recipe: Recipe, share: Efficiency
) -> tuple[Terms, Memory]:
    """Seconds and bytes of every layout."""
    return terms(model, layouts, chip, links, recipe, share), memory(model, layouts, recipe)


def search(
    model: ModelShape,
    devices: int,
    chip: Chip,
    links: Links,
    recipe: Recipe,
    share: Efficiency,
    limit: float = LIMIT,
    only: Callable[[Grid], np.ndarray] | None = None,
) -> Choice:
    """`only`: a mask of the layouts that are wanted. Raises UserError where nothing fits, with the smallest
    that was tried."""
    layouts = grid(model, devices, links.fast_domain)
    layouts = layouts.where(only(layouts)) if only else layouts
    if not len(layouts):
        raise UserError(
            f"{model.name}: its batch of {model.batch} sequences cannot be shared among {devices} devices:"
            " give fewer devices or a larger scale.batch."
        )
    room = limit * chip.memory
    layouts = _leanest_needed(model, layouts, recipe, room)
    seconds, bytes_ = evaluate(model, layouts, chip, links, recipe, share)
    fits = bytes_.total <= room
    if not fits.any():
        _refuse(model, layouts, bytes_, devices, chip, limit)
    order = np.argsort(seconds.total, kind="stable")
    fitting = order[fits[order]]
    best = candidate(layouts, seconds, bytes_, int(fitting[0]))
    others = _distinct(layouts, fitting[1:], fitting[0], RUNNERS_UP)
    faster = order[~fits[order] & (seconds.total[order] < best.seconds)]
    refused = _distinct(layouts, faster, fitting[0], REJECTED)
    extremes = _extremes(layouts, seconds, fitting)
    lost = [row for row in (*refused, *extremes) if row not in others]

    def told(row: int) -> Candidate:
        one = candidate(layouts, seconds, bytes_, row)
        return dataclasses.replace(one, why=_why(one, best, room))

    near = seconds.total[fitting]
    usual = float(np.median(near[near <= PLAUSIBLE * best.seconds]))
    return Choice(best, tuple(map(told, others)), tuple(map(told, lost)), len(layouts), len(fitting), usual)


def _leanest_needed(model: ModelShape, layouts: Grid, recipe: Recipe, room: float) -> Grid:
    """Each layout with as little computed again as its memory allows: none is faster with more."""
    codes = np.full(len(layouts), len(REMATS) - 1)
    for code in reversed(range(len(REMATS) - 1)):
        fits = memory(model, layouts.recomputing(code), recipe).total <= room
        codes = np.where(fits, code, codes)
    return layouts.recomputing(codes)


def candidate(layouts: Grid, seconds: Terms, bytes_: Memory, row: int) -> Candidate:
    def parts(of: Terms | Memory) -> dict[str, float]:
        return {field.name: float(getattr(of, field.name)[row]) for field in dataclasses.fields(of)}

    return Candidate(layouts.layout(row), float(seconds.total[row]), parts(bytes_), parts(seconds))


def _distinct(layouts: Grid, rows: np.ndarray, best: int, most: int) -> list[int]:
    """The first rows that differ from the best and from each other in more than micro-batch and turns."""

    def key(row: int) -> tuple[int, ...]:
        names = ("data", "fsdp", "tensor", "expert", "pipeline", "context")
        return tuple(int(getattr(layouts, name)[row]) for name in names)

    seen, chosen = {key(int(best))}, []
    for row in map(int, rows[:5000]):
        if len(chosen) == most:
            break
        if key(row) not in seen:
            seen.add(key(row))
            chosen.append(row)
    return chosen


def _extremes(layouts: Grid, seconds: Terms, fitting: np.ndarray) -> list[int]:
    """For each axis of the best, the fastest layout that fits without it: what leaving it out would cost."""
    found = []
    for axis in ("tensor", "expert", "pipeline", "context", "fsdp", "data"):
        size = getattr(layouts, axis)[fitting]
        if size[0] > 1 and (size == 1).any():
            found.append(int(fitting[np.argmax(size == 1)]))
    return list(dict.fromkeys(found))


def _why(one: Candidate, best: Candidate, room: float) -> str:
    if one.bytes > room:
        part = max(one.memory, key=lambda name: one.memory[name])
        return (
            f"does not fit: {one.bytes / GIB:.1f} GiB of {room / GIB:.1f}, of which {part}"
            f" {one.memory[part] / GIB:.1f}"
        )
    term = max(one.terms, key=lambda name: one.terms[name] - best.terms[name])
    ratio = one.seconds / best.seconds
    slower = f"{ratio - 1:.1%} slower" if ratio < 2 else f"{ratio:.1f} times as long"
    return f"{slower}: {term} takes {one.terms[term]:.3g} s for {best.terms[term]:.3g}"


def _refuse(model: ModelShape, layouts: Grid, bytes_: Memory, devices: int, chip: Chip, limit: float) -> None:
    row = int(np.argmin(bytes_.total))
    raise UserError(
        f"{model.name} fits nowhere on {devices} x {chip.name}: the leanest of {len(layouts)} layouts"
        f" ({layouts.layout(row)}) needs {bytes_.total[row] / GIB:.1f} GiB a device, and {limit:.0%} of its"
        f" memory are {limit * chip.memory / GIB:.1f}: give more devices or shorter sequences."
    )
