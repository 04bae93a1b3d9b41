"""Evidence of a finished sweep of pairs, and the bets that it allows on larger runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from harness.compare.judge import compare
from harness.compare.results.comparison import Comparison, Rule
from harness.compare.results.verdict_types import BetVerdict, Decision, GateResult, Ladder, Rung
from harness.compare.stats.bet import Drift
from harness.compare.verdict.larger_run import SAME_SCALE, declared_drift, judge_bets, largest_rung
from harness.core.errors import UserError
from harness.records.run.status import State
from harness.records.sweep.find_sweep import read_sweep

MIN_SEEDS = 2
"""Least number of seeds for an interval."""


@dataclass(frozen=True)
class TreatmentEvidence:
    """Verdict and scales of a treatment in the finished sweep."""

    ladder: Ladder
    rungs: tuple[Rung, ...]
    """Smallest scale first."""
    gate: GateResult | None
    """Result of the promotion gate; None: the evidence's experiment has no gate."""

    @property
    def largest(self) -> Rung:
        """Return the largest trained scale that has a result."""
        return largest_rung(self.rungs) or self.rungs[-1]

    @property
    def leader(self) -> str | None:
        """Return the variant ahead at the largest trained scale, by the sign alone: the default predictor of
        larger scales (DataDecide, 2025). None: neither, or the evidence is invalid."""
        delta = self.largest.delta.mean
        if self.ladder.decision is Decision.INVALID or not delta:
            return None
        return self.ladder.variant if delta < 0 else self.ladder.control

    @property
    def flags(self) -> tuple[str, ...]:
        """Return the flags of the ladder without those of its bet, which hold for another run."""
        of_bet = self.ladder.bet.flags if self.ladder.bet else ()
        return tuple(flag for flag in self.ladder.flags if flag not in of_bet)

    def e_folds_beyond(self, flops: float) -> float:
        """Return e-folds of compute beyond the largest trained scale."""
        return math.log(flops / (self.largest.flops or math.nan))


@dataclass(frozen=True)
class PairEvidence:
    """A finished sweep of pairs."""

    path: str
    experiment: str
    loss_unit: str
    rule: Rule
    treatments: tuple[TreatmentEvidence, ...]
    """Evidence of each treatment but the positive control, which no plan trains."""
    rungs: Mapping[str, tuple[Rung, ...]]
    """Scales of each treatment, the positive control among them: Holm's procedure counts it."""
    drifts: Mapping[str, Drift]
    """Declared drift by treatment."""
    sparse: bool = False
    """True if a token of some model passes through a part of the parameters only."""

    @property
    def variants(self) -> tuple[str, ...]:
        """Return the control and all treatments."""
        return (self.rule.control, *(treatment.ladder.variant for treatment in self.treatments))

    def bets(self, flops: float) -> dict[str, BetVerdict | None]:
        """Return the bet on each treatment for a run of `flops`, corrected over the treatments. None: the
        evidence is invalid, has no multiplier at the largest scale, or `flops` is not beyond it."""
        largest = max(treatment.largest.flops or 0.0 for treatment in self.treatments)
        target = largest if math.isclose(flops, largest, rel_tol=SAME_SCALE) else flops
        return judge_bets(self.rule, self.rungs, self.drifts, target)


def read_evidence(path: str) -> PairEvidence:
    """Read and judge a sweep. Raises UserError if there is no sweep, some run is not over, no two variants
    meet, or a scale has too few seeds (2)."""
    try:
        comparison = compare(read_sweep(path))
    except UserError as error:
        raise UserError(f"evidence={error}") from None
    rungs = {
        ladder.variant: tuple(rung for rung in comparison.rungs if rung.variant == ladder.variant)
        for ladder in comparison.ladder
    }
    treatments = tuple(
        TreatmentEvidence(
            ladder,
            rungs[ladder.variant],
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
    drifts = {ladder.variant: _drift(comparison, ladder) for ladder in comparison.ladder}
    experiment, unit, rule = comparison.experiment, comparison.loss_unit, comparison.rule
    return PairEvidence(path, experiment, unit, rule, treatments, rungs, drifts, sparse)


def _drift(comparison: Comparison, ladder: Ladder) -> Drift:
    """Return the drift that the sweep declares for one treatment."""
    if ladder.bet:
        return ladder.bet.drift
    pair = ladder.control, ladder.variant
    touches = {node for row in comparison.fairness if row.variant in pair for node in row.touches}
    return declared_drift(comparison.rule, touches)


def _unfinished_message(comparison: Comparison) -> str:
    """Return how many runs are not over; empty: all are. A run that diverged is an outcome."""
    missing = [run for run in comparison.runs if run.outcome is None and run.state != State.diverged.value]
    if not missing:
        return ""
    amount = f"{len(missing)} of {len(comparison.runs)} runs"
    first = f"{missing[0].path} is {missing[0].state}"
    return f"{amount} have no loss at their end ({first}); finish them with `harness sweep`"


def _too_few_message(treatment: TreatmentEvidence) -> str:
    """Return what a bet lacks; empty: nothing."""
    pair = f"{treatment.ladder.variant} and {treatment.ladder.control}"
    for rung in treatment.rungs:
        if rung.n < MIN_SEEDS:
            seeds = f"{rung.n} seed{'s' * (rung.n != 1)} at {rung.scale}"
            return f"{pair} have {seeds}, and an interval needs {MIN_SEEDS}; add some with seed="
        if not rung.flops:
            return f"its records have no FLOPs at {rung.scale}, so no bet can be made; name another sweep"
    return ""
