"""Extrapolation of a finished sweep of small pairs to planned runs, above all those without a sibling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.compare.results.verdict_types import BetVerdict, Decision, GateResult, LargestScale
from harness.compare.stats.estimates import Multiplier, SlopeAxis, Trend
from harness.compare.stats.scale_trend import DECADE
from harness.core.errors import UserError
from harness.core.interval import Interval
from harness.plan.extrapolation.evidence import PairEvidence, TreatmentEvidence
from harness.plan.extrapolation.recommend import Recommendation
from harness.plan.plan_types import DescribedRun, PlannedRun


@dataclass(frozen=True)
class TreatmentSummary:
    """Evidence of one treatment at the trained scales."""

    variant: str
    control: str
    decision: Decision
    scales: tuple[str, ...]
    largest_scale: LargestScale | None
    """Numbers of the largest scale, which the verdict is about."""
    k: Multiplier | None
    """Multiplier pooled over the scales; None also if they have none in common (HETEROGENEOUS)."""
    heterogeneity_p: float | None
    trend: Trend | None
    leads: str | None
    """Variant that is ahead at the largest scale: the default predictor. None: neither, or the evidence is
    invalid."""
    gate: GateResult | None
    """None: the evidence's experiment has no gate."""
    flags: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ScaleExtrapolation:
    """A treatment at a planned scale. k > 1 favours the treatment; intervals are 90 %, as those of a bet."""

    scale: str
    run: str
    """Planned run whose compute, days and chips count: the control's, if there is one."""
    treatment: str
    control: str
    sibling: bool
    """True if the plan trains both variants at this scale."""
    flops: float
    """Model FLOPs of the run."""
    e_folds: float
    """E-folds of compute beyond the largest trained scale; below zero: within the trained scales."""
    decades: float
    estimand: SlopeAxis | None
    """Quantity that k multiplies."""
    verdict: BetVerdict | None
    """Bet on a run of these FLOPs, corrected over the treatments. None: the run is not beyond the trained
    scales, the largest of them has no multiplier, or the evidence is invalid."""
    k: Interval | None
    """Prediction of the bet, on its axis. The ends reach 0 and infinity beyond a float."""
    log_k: Interval | None
    days_saved: Interval | None
    """Days of the control x (1 - 1/k): what the treatment saves for the same loss, at an equal time a token
    (an equal time a FLOP, or at its own, by the axis of the bet); below zero: it needs more. None: the run
    never ends, or trains no control."""
    chips_saved: Interval | None
    """Chips of the control that the treatment saves in equally many days."""
    flags: tuple[str, ...]
    """Flags of the evidence, which limit all of it, and of this bet."""
    tags: tuple[str, ...]
    bet: str | None
    """Variant to bet on; None: the evidence does not settle it, or either will do."""
    sentence: str


@dataclass(frozen=True)
class Extrapolation:
    """All planned scales, as `harness plan --json` prints them under `bets`."""

    evidence: str
    """Directory of the sweep."""
    experiment: str
    treatments: tuple[TreatmentSummary, ...]
    rows: tuple[ScaleExtrapolation, ...]
    """Scales with least compute first."""
    notes: tuple[str, ...]
    """Runs without an extrapolation, each with the reason."""


def extrapolate(
    evidence: PairEvidence, runs: Sequence[DescribedRun], planned: Sequence[PlannedRun]
) -> Extrapolation:
    """Carry the evidence to each planned scale. Raises UserError if the plan trains none of its variants."""
    by_name = {run.name: run for run in planned}
    reasons = {run.name: _exclusion_reason(evidence, run, by_name[run.name]) for run in runs}
    exclusions = {name: reason for name, reason in reasons.items() if reason}
    usable_runs = [run for run in runs if run.name not in exclusions]
    if not usable_runs:
        compared = f"{', '.join(evidence.variants)} ({evidence.loss_unit})"
        trouble = f"evidence={evidence.path} compares {compared}, but this plan trains none of them"
        raise UserError(f"{trouble}. Choose a sweep with the plan's variants.")
    rows = [
        _extrapolate_scale(evidence, treatment, group, by_name)
        for treatment in evidence.treatments
        for group in _runs_by_scale(usable_runs, treatment)
    ]
    names = {run.config.variant.name for run in runs}
    absent = [name for name in evidence.variants if name not in names]
    notes = [f"{name}: no run of this plan has this variant." for name in absent] + [*exclusions.values()]
    sparse = any(0 < run.facts.active_parameters < run.facts.non_embedding for run in usable_runs)
    if evidence.sparse != sparse:
        models = "experts, the plan's none" if evidence.sparse else "no experts, the plan's some"
        notes.append(f"The evidence's models have {models}: that k is the same for both is assumed.")
    return Extrapolation(
        evidence.path,
        evidence.experiment,
        tuple(map(_summarise, evidence.treatments)),
        tuple(sorted(rows, key=lambda row: (row.flops, row.treatment))),
        tuple(notes),
    )


def _exclusion_reason(evidence: PairEvidence, run: DescribedRun, planned: PlannedRun) -> str:
    """Return why a run has no extrapolation; empty: it has one."""
    if not planned.tokens:
        return f"{run.name}: it has no token budget."
    if run.facts.loss_unit != evidence.loss_unit:
        return f"{run.name}: its loss is in {run.facts.loss_unit}, the evidence's in {evidence.loss_unit}."
    if run.config.variant.name not in evidence.variants:
        return f"{run.name}: the evidence does not compare its variant."
    return ""


def _runs_by_scale(runs: Sequence[DescribedRun], evidence: TreatmentEvidence) -> list[list[DescribedRun]]:
    """Return the runs of both variants at each scale, the control's first."""
    control, treatment = evidence.ladder.control, evidence.ladder.variant
    groups: dict[str, list[DescribedRun]] = {}
    for run in runs:
        if run.config.variant.name in (control, treatment):
            groups.setdefault(run.config.scale.name, []).append(run)
    return [sorted(group, key=lambda run: run.config.variant.name != control) for group in groups.values()]


def _summarise(treatment: TreatmentEvidence) -> TreatmentSummary:
    ladder = treatment.ladder
    return TreatmentSummary(
        ladder.variant, ladder.control, ladder.decision, ladder.scales, ladder.largest_scale, ladder.k,
        ladder.heterogeneity_p, ladder.trend, treatment.leader, treatment.gate, treatment.flags,
    )  # fmt: skip


def _extrapolate_scale(
    evidence: PairEvidence,
    treatment: TreatmentEvidence,
    group: Sequence[DescribedRun],
    planned: dict[str, PlannedRun],
) -> ScaleExtrapolation:
    ladder, first, run = treatment.ladder, group[0].config, planned[group[0].name]
    flops = run.flops_per_token * (run.tokens or 0)
    e_folds, verdict = treatment.e_folds_beyond(flops), evidence.bets(flops)[ladder.variant]
    sibling = len({described.config.variant.name for described in group}) > 1
    recommendation = Recommendation(first.scale.name, treatment, verdict, e_folds / DECADE, sibling)
    log_k = verdict and Interval(verdict.estimate.log_k, verdict.estimate.low, verdict.estimate.high)
    saved = log_k if first.variant.name == ladder.control else None
    return ScaleExtrapolation(
        scale=recommendation.scale,
        run=run.name,
        treatment=ladder.variant,
        control=ladder.control,
        sibling=sibling,
        flops=flops,
        e_folds=e_folds,
        decades=recommendation.decades,
        estimand=treatment.largest.k.estimand if treatment.largest.k else None,
        verdict=verdict,
        k=log_k and Interval(_exp_or_inf(log_k.value), _exp_or_inf(log_k.low), _exp_or_inf(log_k.high)),
        log_k=log_k,
        days_saved=_savings(saved, run.days),
        chips_saved=_savings(saved, Interval(run.chips, run.chips, run.chips)),
        flags=tuple(sorted({*treatment.flags, *(verdict.flags if verdict else ())})),
        tags=("EXTRAPOLATION",) if e_folds > 0 else (),
        bet=recommendation.bet,
        sentence=recommendation.sentence,
    )


def _savings(log_k: Interval | None, amount: Interval | None) -> Interval | None:
    """Return amount x (1 - 1/k), from the ends of both: whichever of the amount's makes it wider."""
    if log_k is None or amount is None:
        return None
    value, low, high = (1 - _exp_or_inf(-end) for end in (log_k.value, log_k.low, log_k.high))
    ends = min(amount.low * low, amount.high * low), max(amount.low * high, amount.high * high)
    return Interval(amount.value * value, *ends)


def _exp_or_inf(value: float) -> float:
    """Return e^value, or infinity beyond a float."""
    return math.exp(value) if value < 700 else math.inf
