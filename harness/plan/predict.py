"""Prediction of a training step's cost, each number with its interval and evidence."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from harness.core.errors import UserError
from harness.core.interval import Interval
from harness.estimate.calibration import FITTED_CALIBRATION, UNCERTAINTY, Calibration, launch_doubt
from harness.estimate.clusters import Cluster, Partition, load_cluster
from harness.estimate.layouts import Layout, LayoutGrid, check_layout
from harness.estimate.memory import EXACT_PARTS, MEMORY_LIMIT, MEMORY_UNCERTAINTY, device_memory
from harness.estimate.model_size import ModelShape
from harness.estimate.roofline import step_terms
from harness.plan.calibration.published_run import PublishedRun, read_published_run
from harness.plan.calibration.uncertainty import uncertainty_sources
from harness.plan.layout_search import (
    EvaluatedLayout,
    LayoutChoice,
    evaluated_layout,
    search_layouts,
)


class EvidenceKind(Enum):
    """Source of a number."""

    closed_form = "closed form"
    measured = "earlier runs on this machine"
    corrected = "earlier runs on this machine, corrected by how wrong earlier predictions were"
    analytic = "analytic, calibrated"
    assumed = "assumed"


@dataclass(frozen=True)
class PlanEstimate(Interval):
    """A value with its 90 % interval, and the evidence that it rests on."""

    evidence: EvidenceKind

    @staticmethod
    def exact(value: float) -> PlanEstimate:
        """Return a count in closed form: both ends are the value."""
        return PlanEstimate(value, value, value, EvidenceKind.closed_form)

    @staticmethod
    def within(value: float, factor: float, evidence: EvidenceKind) -> PlanEstimate:
        """Return a value that may be wrong by `factor` either way."""
        return PlanEstimate(value, value / factor, value * factor, evidence)

    def rate_of(self, amount: float) -> PlanEstimate:
        """Return `amount` over this duration, as a rate."""
        return PlanEstimate(amount / self.value, amount / self.high, amount / self.low, self.evidence)


@dataclass(frozen=True)
class CostPrediction:
    """Memory, step time and duration of training one model in one layout on some chips."""

    model: ModelShape
    devices: int
    layout: Layout
    parameters: PlanEstimate
    active_parameters: PlanEstimate
    flops_per_token: PlanEstimate
    """Model FLOPs of one trained token, causal."""
    memory: dict[str, PlanEstimate]
    """Bytes of the fullest device, by part."""
    memory_limit: float
    """Bytes of a device that a plan may use."""
    step_seconds: PlanEstimate
    terms: dict[str, float]
    """Calibrated seconds of the step by term; they sum to the value of `step_seconds`."""
    tokens_per_second: PlanEstimate
    """Tokens per second of all devices together."""
    mfu: PlanEstimate
    """Model FLOPs over the 16-bit peak; over that of the matmul dtype if the chip has no 16-bit peak."""
    days: PlanEstimate | None
    """Days of the whole token budget without an interruption; None: the model has no budget."""
    choice: LayoutChoice | None
    """Result of the layout search; None: the layout was given."""
    notes: tuple[str, ...]
    """Assumptions, one sentence each."""

    @property
    def fits(self) -> bool:
        """Return whether the fullest device holds all parts within `memory_limit`."""
        return sum(part.value for part in self.memory.values()) <= self.memory_limit


def predict(
    model: ModelShape | Mapping[str, Any],
    cluster: Cluster | str | None = None,
    layout: Layout | None = None,
    *,
    devices: int | None = None,
    kind: str | None = None,
    calibration: Calibration = FITTED_CALIBRATION,
) -> CostPrediction:
    """Predict a model on a cluster (or the name of one in conf/cluster), in `layout` or in the best layout
    for `devices` (default: all) of one `kind` of its chips. A mapping is read as the columns of a published
    run, which say all that is not given.

    Raises UserError for a missing number, an axis that does not divide, or a model that fits nowhere.
    """
    cluster = load_cluster(cluster) if isinstance(cluster, str) else cluster
    if isinstance(model, ModelShape):
        if cluster is None:
            raise UserError(f"{model.name}: a plan needs a cluster. Give its name, or one from load_cluster.")
        part = cluster.partition(kind)
        row = _planned_row(model, part, layout, devices or (layout.devices if layout else part.chips))
    else:
        row = read_published_run(model)
        if cluster is not None:
            part = cluster.partition(kind)
            row = dataclasses.replace(row, chip=part.chip, links=part.links, chips=devices or row.chips)
        row = dataclasses.replace(row, layout=layout or row.layout)
    if layout is not None:
        check_layout(row.model, layout)
    return _prediction(row, calibration)


def uncalibrated_cost(row: PublishedRun) -> tuple[EvaluatedLayout, LayoutChoice | None]:
    """Return the closed-form cost of a run, and the search if its layout is not known. The terms of a
    published run's best layout are then scaled to the median of the layouts that are about as fast."""
    if row.layout is not None:
        grid = LayoutGrid.from_layouts([row.layout])
        seconds = step_terms(row.model, grid, row.chip, row.links)
        limit = MEMORY_LIMIT * row.chip.memory
        return evaluated_layout(grid, seconds, device_memory(row.model, grid), 0, limit), None
    choice = search_layouts(row.model, row.chips, row.chip, row.links)
    best = choice.best
    if not row.is_published:
        return best, choice
    # All chips of a published run trained, whatever our axes divide.
    factor = choice.typical_seconds / best.seconds * best.layout.devices / row.chips
    terms = {name: seconds * factor for name, seconds in best.terms.items()}
    return dataclasses.replace(best, seconds=best.seconds * factor, terms=terms), choice


def _planned_row(model: ModelShape, part: Partition, layout: Layout | None, devices: int) -> PublishedRun:
    if devices > part.chips:
        raise UserError(f"{model.name} asks for {devices} devices; {part.name} has {part.chips}. Give fewer.")
    return PublishedRun(model.name, "", model, part.chip, part.links, devices, layout, (), ())


def _prediction(row: PublishedRun, calibration: Calibration) -> CostPrediction:
    best, choice = uncalibrated_cost(row)
    sources = (*uncertainty_sources(row), *launch_doubt(best.terms["launch"], best.seconds))
    spread = math.exp(calibration.log_half_width(sources))
    step = PlanEstimate.within(best.seconds * calibration.factor, spread, EvidenceKind.analytic)
    model, num_devices = row.model, row.chips if row.is_published else best.layout.devices
    peak = row.chip.peaks.get("bf16") or row.chip.peak(model.precision.matmul_dtype)
    days = None if model.tokens is None else step.scaled(model.tokens / model.tokens_per_step / 86_400)
    return CostPrediction(
        model=model,
        devices=num_devices,
        layout=best.layout,
        parameters=PlanEstimate.exact(model.parameters),
        active_parameters=PlanEstimate.exact(model.active_parameters),
        flops_per_token=PlanEstimate.exact(model.flops_per_token),
        memory=memory_estimates(best.memory, EvidenceKind.analytic),
        memory_limit=MEMORY_LIMIT * row.chip.memory,
        step_seconds=step,
        terms={name: seconds * calibration.factor for name, seconds in best.terms.items()},
        tokens_per_second=step.rate_of(model.tokens_per_step),
        mfu=step.rate_of(model.step_flops / (peak * num_devices)),
        days=days,
        choice=choice,
        notes=_notes(row, num_devices, sources, "copy" in best.memory),
    )


def memory_estimates(parts: Mapping[str, float], evidence: EvidenceKind) -> dict[str, PlanEstimate]:
    """Return the bytes of a device by part with their intervals. `evidence`: of what is no exact count."""
    return {
        name: PlanEstimate.exact(value)
        if name in EXACT_PARTS
        else PlanEstimate.within(value, MEMORY_UNCERTAINTY, evidence)
        for name, value in parts.items()
    }


def _notes(row: PublishedRun, num_devices: int, sources: Sequence[str], has_copy: bool) -> tuple[str, ...]:
    notes = [f"{key}: not given, assumed" for key in row.assumed_columns]
    notes += row.remembered_notes
    if num_devices < row.chips:
        notes.append(f"{row.chips - num_devices} of {row.chips} devices stay idle: no layout divides them")
    if not has_copy and not row.is_published:
        notes.append("training waits while the state is saved: a device has no room for a copy of it")
    width = "; ".join(f"{doubt} {UNCERTAINTY[doubt]:.2f}" for doubt in sources)
    return (*notes, f"interval widened (sd in ln) for {width}") if sources else tuple(notes)
