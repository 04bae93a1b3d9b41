"""`predict(model, cluster, layout)`: what a step takes, with low, high and the evidence of each number."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from harness.core.errors import UserError
from harness.plan.calibration import uncertainty
from harness.plan.calibration.published_run import Row, read_row
from harness.plan.calibration.uncertainty import FITTED, Calibration, doubts_of
from harness.plan.cluster.clusters import Cluster, Partition, load
from harness.plan.cost_model.chip_efficiency import efficiency
from harness.plan.cost_model.layout_search import Candidate, Choice, candidate, evaluate, search
from harness.plan.cost_model.layouts import Grid, Layout, check
from harness.plan.cost_model.memory import LIMIT
from harness.plan.cost_model.model_size import ModelShape

MEMORY_DOUBT = 1.25
"""Factor either way by which the estimate of activations may be wrong; assumed. 1 for the state."""


WAITS = 0.1
"""Share of a step from which on the time to start kernels is doubted."""


class Evidence(Enum):
    """The layer that a number comes from."""

    closed_form = "closed form"
    measured = "earlier runs on this machine"
    corrected = "earlier runs on this machine, corrected by how wrong earlier predictions were"
    analytic = "analytic, calibrated"
    assumed = "assumed"


@dataclass(frozen=True)
class Number:
    """A value between `low` and `high` (90 %), and why it is believed."""

    value: float
    low: float
    high: float
    evidence: Evidence

    @staticmethod
    def exact(value: float) -> Number:
        return Number(value, value, value, Evidence.closed_form)

    def times(self, factor: float) -> Number:
        """In another unit, or of so many."""
        return Number(self.value * factor, self.low * factor, self.high * factor, self.evidence)

    def over(self, amount: float) -> Number:
        """`amount` divided by it: a rate from a duration."""
        return Number(amount / self.value, amount / self.high, amount / self.low, self.evidence)


@dataclass(frozen=True)
class Prediction:
    """What training this model in this layout on these chips would take."""

    model: ModelShape
    devices: int
    layout: Layout
    parameters: Number
    active_parameters: Number
    flops_per_token: Number
    """Model FLOPs of one trained token, causal."""
    memory: dict[str, Number]
    """Bytes of the fullest device, by part."""
    memory_limit: float
    """Bytes of a device that a plan may use."""
    step_seconds: Number
    terms: dict[str, float]
    """Seconds of the step by what they go to, calibrated; they sum to the value of `step_seconds`."""
    tokens_per_second: Number
    """Of all devices."""
    mfu: Number
    """Model FLOPs over the 16-bit (or the recipe's only) peak."""
    days: Number | None
    """Of the whole budget without an interruption; None where the model has no budget."""
    choice: Choice | None
    """The search, where the layout was not given."""
    notes: tuple[str, ...]
    """What was assumed."""

    @property
    def fits(self) -> bool:
        return sum(part.value for part in self.memory.values()) <= self.memory_limit


def predict(
    model: ModelShape | Mapping[str, Any],
    cluster: Cluster | str | None = None,
    layout: Layout | None = None,
    *,
    devices: int | None = None,
    kind: str | None = None,
    known: Calibration = FITTED,
) -> Prediction:
    """Of a model on a cluster (or the name of one that ships), in a layout or in the best that is found for
    `devices` (default: all) of one `kind` of its chips. Of a mapping, a published row by its columns, the row
    says all that is not given.

    Raises UserError for what is missing, does not divide or fits nowhere.
    """
    cluster = load(cluster) if isinstance(cluster, str) else cluster
    if isinstance(model, ModelShape):
        if cluster is None:
            raise UserError(
                f"{model.name}: a plan needs a cluster: give one of harness.plan.cluster.clusters.load."
            )
        part = cluster.part(kind)
        row = _row_of(model, part, layout, devices or (layout.devices if layout else part.chips))
    else:
        row = read_row(model)
        if cluster is not None:
            part = cluster.part(kind)
            row = dataclasses.replace(row, chip=part.chip, links=part.links, chips=devices or row.chips)
        row = dataclasses.replace(row, layout=layout or row.layout)
    if layout is not None:
        check(row.model, layout)
    return _prediction(row, known)


def closed_form(row: Row) -> tuple[Candidate, Choice | None]:
    """Of a row, uncalibrated; and the search, where its layout is not told. Of a published one the best
    layout's parts are then scaled to what is usual among those that are about as fast."""
    share = efficiency(row.chip.name)
    if row.layout is None:
        choice = search(row.model, row.chips, row.chip, row.links, row.recipe, share)
        best = choice.best
        # All chips of a published run trained, whatever our axes divide.
        usual = choice.usual / best.seconds * best.layout.devices / row.chips
        return _scaled(best, usual) if row.published else best, choice
    layouts = Grid.of([row.layout])
    seconds, bytes_ = evaluate(row.model, layouts, row.chip, row.links, row.recipe, share)
    return candidate(layouts, seconds, bytes_, 0), None


def _scaled(one: Candidate, factor: float) -> Candidate:
    parts = {name: seconds * factor for name, seconds in one.terms.items()}
    return dataclasses.replace(one, seconds=one.seconds * factor, terms=parts)


def _row_of(model: ModelShape, part: Partition, layout: Layout | None, devices: int) -> Row:
    if devices > part.chips:
        raise UserError(f"{model.name} asks for {devices} devices; {part.name} has {part.chips}: give fewer.")
    return Row(model.name, "", model, part.chip, part.links, devices, layout, (), ())


def _prediction(row: Row, known: Calibration) -> Prediction:
    best, choice = closed_form(row)
    doubts = doubts_of(row)
    if best.terms["launch"] > WAITS * best.seconds:
        doubts = (*doubts, "launch")
    step = _calibrated(best.seconds, known, doubts)
    model, used = row.model, row.chips if row.published else best.layout.devices
    peak = row.chip.peaks.get("bf16") or row.chip.peak(row.recipe.precision)
    days = None if model.tokens is None else step.times(model.tokens / model.tokens_per_step / 86_400)
    return Prediction(
        model=model,
        devices=used,
        layout=best.layout,
        parameters=Number.exact(model.parameters),
        active_parameters=Number.exact(model.active),
        flops_per_token=Number.exact(model.flops_per_token),
        memory={name: _bytes(name, value) for name, value in best.memory.items()},
        memory_limit=LIMIT * row.chip.memory,
        step_seconds=step,
        terms={name: seconds * known.factor for name, seconds in best.terms.items()},
        tokens_per_second=step.over(model.tokens_per_step),
        mfu=step.over(model.step_flops / (peak * used)),
        days=days,
        choice=choice,
        notes=_notes(row, used, doubts),
    )


def _calibrated(seconds: float, known: Calibration, doubts: Sequence[str]) -> Number:
    value, wide = seconds * known.factor, math.exp(known.interval(doubts))
    return Number(value, value / wide, value * wide, Evidence.analytic)


def _bytes(part: str, value: float) -> Number:
    if part in ("weights", "optimizer", "gradients"):
        return Number.exact(value)
    return Number(value, value / MEMORY_DOUBT, value * MEMORY_DOUBT, Evidence.analytic)


def _notes(row: Row, used: int, doubts: Sequence[str]) -> tuple[str, ...]:
    told = [f"{key}: not told, assumed" for key in row.assumed]
    told += row.doubtful
    if used < row.chips:
        told.append(f"{row.chips - used} of {row.chips} devices stay idle: no layout divides them")
    width = "; ".join(f"{doubt} {uncertainty.DOUBT[doubt]:.2f}" for doubt in doubts)
    return (*told, f"interval widened (sd in ln) for {width}") if doubts else tuple(told)
