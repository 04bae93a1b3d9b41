"""Evidence of a finished sweep of pairs, and the line that carries it to other scales."""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.compare.judge import compare
from harness.compare.results.comparison import Comparison
from harness.compare.results.verdict_types import Decision, GateResult, Ladder, Rung
from harness.compare.stats.scale_trend import project
from harness.core.errors import UserError
from harness.core.interval import Interval
from harness.records.run.status import State
from harness.records.sweep.find_sweep import read_sweep

MIN_SCALES, MIN_SEEDS = 3, 2
"""Least number of scales for a line, and of seeds for an interval."""


@dataclass(frozen=True)
class TreatmentEvidence:
    """Verdict and scales of a treatment in the finished sweep."""

    ladder: Ladder
    rungs: tuple[Rung, ...]
    gate: GateResult | None
    """Result of the promotion gate; None: the evidence's experiment has no gate."""

    @property
    def largest(self) -> Rung:
        """Return the trained scale with most compute."""
        return max(self.rungs, key=lambda rung: rung.flops or 0.0)

    @property
    def leader(self) -> str | None:
        """Return the variant ahead at the largest trained scale, by the sign alone: the default predictor of
        larger scales (DataDecide, 2025). None: neither, or the evidence is invalid."""
        delta = self.largest.delta.mean
        if self.ladder.decision is Decision.INVALID or not delta:
            return None
        return self.ladder.variant if delta < 0 else self.ladder.control

    def e_folds_beyond(self, flops: float) -> float:
        """Return e-folds of compute beyond the largest trained scale."""
        return math.log(flops / (self.largest.flops or math.nan))

    def log_k(self, flops: float) -> Interval | None:
        """Return ln k on the line at `flops` of a control run with its 95 % prediction interval, however
        wide; None if no line can be drawn, or the verdict is invalid."""
        if self.ladder.decision is Decision.INVALID:
            return None
        points = [(math.log(rung.flops), rung.k) for rung in self.rungs if rung.flops and rung.k]
        log_flops, k = [x for x, _ in points], [k for _, k in points]
        start = project(log_flops, k, ahead=0.0)  # at the largest scale that carries a multiplier
        projection = project(log_flops, k, ahead=math.log(flops / start.flops)) if start else None
        return Interval(projection.log_k, projection.log_low, projection.log_high) if projection else None


@dataclass(frozen=True)
class PairEvidence:
    """A finished sweep of pairs with a trend."""

    path: str
    experiment: str
    loss_unit: str
    control: str
    treatments: tuple[TreatmentEvidence, ...]
    """Evidence of each treatment but the positive control, which no plan trains."""
    sparse: bool = False
    """True if a token of some model passes through a part of the parameters only."""

    @property
    def variants(self) -> tuple[str, ...]:
        """Return the control and all treatments."""
        return (self.control, *(treatment.ladder.variant for treatment in self.treatments))


def read_evidence(path: str) -> PairEvidence:
    """Read and judge a sweep. Raises UserError if there is no sweep, some run is not over, no two variants
    meet, or scales (3) or seeds per scale (2) are too few."""
    try:
        comparison = compare(read_sweep(path))
    except UserError as error:
        raise UserError(f"evidence={error}") from None
    treatments = tuple(
        TreatmentEvidence(
            ladder,
            tuple(rung for rung in comparison.rungs if rung.variant == ladder.variant),
            next((gate for gate in comparison.gate or () if gate.variant == ladder.variant), None),
        )
        for ladder in comparison.ladder
        if not ladder.positive_control
    )
    if why := _unfinished_message(comparison) or next(filter(None, map(_too_few_message, treatments)), ""):
        raise UserError(f"evidence={path}: {why}")
    if not treatments:
        raise UserError(f"evidence={path}: no two variants meet there; name a sweep that trained pairs")
    sparse = any(0 < row.active_parameters < row.non_embedding for row in comparison.fairness)
    control, unit = comparison.rule.control, comparison.loss_unit
    return PairEvidence(path, comparison.experiment, unit, control, treatments, sparse)


def _unfinished_message(comparison: Comparison) -> str:
    """Return how many runs are not over; empty: all are. A run that diverged is an outcome."""
    missing = [run for run in comparison.runs if run.outcome is None and run.state != State.diverged.value]
    if not missing:
        return ""
    amount = f"{len(missing)} of {len(comparison.runs)} runs"
    first = f"{missing[0].path} is {missing[0].state}"
    return f"{amount} have no loss at their end ({first}); finish them with `harness sweep`"


def _too_few_message(treatment: TreatmentEvidence) -> str:
    """Return what a line with an interval lacks; empty: nothing."""
    pair = f"{treatment.ladder.variant} and {treatment.ladder.control}"
    if len(treatment.rungs) < MIN_SCALES:
        scales = _count(len(treatment.rungs), "scale")
        return f"{pair} meet at {scales}, and a trend needs {MIN_SCALES}; add some with scale="
    for rung in treatment.rungs:
        if rung.n < MIN_SEEDS:
            seeds = f"{_count(rung.n, 'seed')} at {rung.scale}"
            return f"{pair} have {seeds}, and an interval needs {MIN_SEEDS}; add some with seed="
        if not rung.flops:
            return f"its records have no FLOPs at {rung.scale}, so no trend can be drawn; name another sweep"
    return ""


def _count(n: int, word: str) -> str:
    return f"{n} {word}{'s' * (n != 1)}"
