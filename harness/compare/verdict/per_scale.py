"""Treatment at one scale: effect, multiplier, flags and decision."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.compare.inputs.pairing import PairedRuns
from harness.compare.inputs.run_terms import amounts_differ
from harness.compare.inputs.step_timing import NOT_TIMED, StepTiming
from harness.compare.results.comparison import Rule
from harness.compare.results.verdict_types import (
    DomainEffect,
    Equivalence,
    EquivalenceUnit,
    Look,
    Pair,
    Rung,
)
from harness.compare.stats.compute_multiplier import compute_multiplier
from harness.compare.stats.control_slope import ControlSlope
from harness.compare.stats.estimates import Effect, Multiplier, SlopeAxis
from harness.compare.stats.multiple_testing import sign_flip, smallest_p, tost
from harness.compare.stats.paired_effects import (
    NoiseFloor,
    effect_from_deltas,
    outlier_masks,
    paired_effect,
    pearson_correlation,
    variance_mismatch,
    welch_effect,
)
from harness.compare.stats.speed_up import TimingRatio, effective_speed_up
from harness.compare.stats.superiority import Superiority, probability_b_better
from harness.compare.verdict.control_slopes import control_slopes
from harness.compare.verdict.decide import decide_rung, next_step_for_rung, seeds_to_halve
from harness.compare.verdict.flags import asks_for_tuning, paths_far_above, rung_flags, tuning_flags
from harness.compare.verdict.interim_looks import LookPosition, look_position, look_rows, sequential_p_at_look
from harness.compare.verdict.iso_compute import iso_rows
from harness.config.schema.decision import Axis
from harness.records.run.training_target import END

MATCHED_MULTIPLIER = {
    Axis.tokens: SlopeAxis.k_tokens,
    Axis.flops: SlopeAxis.k_flops,
    Axis.seconds: SlopeAxis.k_seconds,
}
"""Resource that k multiplies at fixed model size, by what the rule makes equal."""
NO_SLOPES: Mapping[str, ControlSlope] = {}


@dataclass(frozen=True)
class TreatmentContext:
    """Inputs common to all rungs of one treatment."""

    rule: Rule
    floors: Mapping[str, NoiseFloor]
    floor_mismatch: bool
    """True if the A/A library does not fit the noise of these pairs, so that it is not used."""
    noise_sd: Mapping[str, float]
    """SD of an A/A difference by scale, in nats, to detect divergence."""
    slopes: Mapping[str, ControlSlope]
    ladder_slopes: Mapping[str, ControlSlope]
    tuning: Mapping[str, Any]
    outliers: Mapping[str, np.ndarray]
    """Mask (pairs,) of the outlier pairs, by scale."""
    family: int
    """Number of tests: treatments x scales."""
    damaged: bool = False
    """True if a record of the whole sweep is damaged."""
    timing: StepTiming = NOT_TIMED
    """Step times, at the scale that was timed."""


@dataclass(frozen=True)
class DraftRung:
    """A rung before Holm's adjustment over all rungs."""

    pairing: PairedRuns
    delta: Effect
    p: float | None
    """Input of Holm's procedure: the p of `delta`, or with looks the sequential p."""
    k: Multiplier | None
    k_ladder: Multiplier | None
    correlation: float | None
    flags: frozenset[str]
    looks: tuple[Look, ...]
    position: LookPosition | None
    context: TreatmentContext


def draft_rungs(
    rule: Rule,
    pairings: Sequence[PairedRuns],
    floors: Mapping[str, NoiseFloor],
    tuning: Mapping[str, Any],
    family: int,
    damaged: bool = False,
    timing: StepTiming = NOT_TIMED,
    known_slopes: Mapping[str, ControlSlope] = NO_SLOPES,
) -> list[DraftRung]:
    """Judge every rung of one treatment, before Holm's correction over all of them.

    The A/A library, which holds for full runs, is checked against the noise of these pairs, pooled over
    scales. `family` is the number of tests; known_slopes: the control's by scale, if they are not to come
    from its own runs.
    """
    judged_at_end = {pairing.scale for pairing in pairings if pairing.look == END}
    floors = {scale: floor for scale, floor in floors.items() if scale in judged_at_end}
    deltas = [pairing.loss_differences for pairing in pairings]
    floor_mismatch = variance_mismatch(deltas, [floors.get(pairing.scale) for pairing in pairings])
    outliers = {pairing.scale: mask for pairing, mask in zip(pairings, outlier_masks(deltas), strict=True)}
    noise_sd = {pairing.scale: value for pairing in pairings if (value := _noise_sd(pairing, floors, deltas))}
    slopes = control_slopes(pairings, known_slopes)
    context = TreatmentContext(
        rule, {} if floor_mismatch else floors, floor_mismatch, noise_sd, *slopes, tuning,
        outliers, family, damaged, timing,
    )  # fmt: skip
    return [_draft_rung(pairing, context) for pairing in pairings]


def _draft_rung(pairing: PairedRuns, context: TreatmentContext) -> DraftRung:
    """Compute effect, multiplier and flags of one rung."""
    position, floor = look_position(pairing, context.rule), context.floors.get(pairing.scale)
    level = 1 - position.alpha if position else 0.95
    if pairing.paired:
        delta = paired_effect(pairing.control_losses, pairing.treatment_losses, floor=floor, level=level)
    else:
        delta = welch_effect(pairing.all_control_losses, pairing.all_treatment_losses, level=level)
    looks = look_rows(pairing, context.rule, context.family, floor)
    p = sequential_p_at_look(pairing, looks, delta, position) if position else delta.p
    correlation = pearson_correlation(pairing.control_losses, pairing.treatment_losses)
    k, k_ladder = compute_multipliers(pairing, delta, context)
    flags = rung_flags(pairing, delta, correlation) | _context_flags(pairing, context, k)
    seeds = {run.provenance.seed for run in (*pairing.control_runs, *pairing.treatment_runs)}
    if len(pairing.pairs) == 1 and len(seeds) > 1 and "INCOMPLETE" in flags and "DIVERGED" not in flags:
        flags -= {"NO_SEED_REPLICATION"}  # The other seeds are still training.
    return DraftRung(pairing, delta, p, k, k_ladder, correlation, frozenset(flags), looks, position, context)


def compute_multipliers(
    pairing: PairedRuns, delta: Effect, context: TreatmentContext
) -> tuple[Multiplier | None, Multiplier | None]:
    """Return the multiplier of a difference along the axis that k uses, and along the ladder. At equal FLOPs
    or device-seconds the same formula, with the slope in tokens, gives k of that resource."""
    match = context.rule.match
    ratio = _flops_ratio(pairing) if match is Axis.tokens else None
    slopes = context.slopes.get(pairing.scale), context.ladder_slopes.get(pairing.scale)
    k, k_ladder = (compute_multiplier(delta, s, flops_ratio=ratio) if s else None for s in slopes)
    if k and k.estimand is SlopeAxis.k_tokens:
        k = dataclasses.replace(k, estimand=MATCHED_MULTIPLIER[match])
    return k, k_ladder


def step_time(draft: DraftRung) -> TimingRatio | None:
    """Return the timed ratio of step times; None if this scale was not timed. That of another scale is never
    taken instead."""
    timing, pairing = draft.context.timing, draft.pairing
    return timing.ratios.get(pairing.variant) if timing.scale == pairing.scale else None


def speed_up(draft: DraftRung) -> Multiplier | None:
    """Return k at equal device-seconds; None without k, if this scale was not timed, or if the losses are not
    those at equal tokens."""
    ratio = step_time(draft) if draft.context.rule.match is Axis.tokens else None
    return effective_speed_up(draft.k, ratio, level=draft.delta.level) if draft.k and ratio else None


def equivalence_test(draft: DraftRung, k: Multiplier | None) -> Equivalence | None:
    """Return the TOST of a rung's ln k on some axis, or of its loss difference if the rule has a margin for
    that and tokens decide; None without a multiplier. At a look p holds for that look alone, so it is
    corrected by the share of alpha that the look spends."""
    rule, delta = draft.context.rule, draft.delta
    in_nats = rule.margin_nats if rule.axis is Axis.tokens else None
    if in_nats is not None:
        p, margin, unit = tost(delta.mean, delta.se, delta.df, in_nats), in_nats, EquivalenceUnit.loss
    elif k is not None:
        p, margin, unit = tost(k.log_k, k.log_se, k.df, rule.margin), rule.margin, EquivalenceUnit.log_k
    else:
        return None
    if p is not None and draft.position is not None:
        p = min(1.0, p * (rule.alpha / draft.position.alpha))
    return Equivalence(margin, p, p is not None and p < rule.alpha, unit)


def finish_rung(draft: DraftRung, p_holm: float | None) -> Rung:
    """Decide a rung from its Holm-adjusted p and return it with all its numbers."""
    pairing, delta, k, rule = draft.pairing, draft.delta, draft.k, draft.context.rule
    flags = tuple(sorted(draft.flags))
    equivalence = equivalence_test(draft, k)
    ruling = decide_rung(delta, p_holm, equivalence, flags, rule.alpha)
    more_seeds = seeds_to_halve(delta)
    controls, _ = pairing.judged_results
    first = controls[0][1] if controls else None
    losses = pairing.control_losses.tolist(), pairing.treatment_losses.tolist()
    pair_losses = zip(pairing.pairs, *losses, strict=True)
    deltas, outliers = pairing.loss_differences, draft.context.outliers[pairing.scale]
    has_pairs = pairing.paired and delta.n > 1
    return Rung(
        scale=pairing.scale,
        variant=pairing.variant,
        control=pairing.control,
        n=delta.n,
        paired=pairing.paired,
        tokens=first.tokens if first else None,
        flops=first.flops if first else None,
        control_loss=_mean(pairing.control_losses if pairing.paired else pairing.all_control_losses),
        treatment_loss=_mean(pairing.treatment_losses if pairing.paired else pairing.all_treatment_losses),
        delta=delta,
        k=k,
        correlation=draft.correlation,
        method=delta.method,
        df=delta.df,
        p=draft.p,
        p_holm=p_holm,
        sign_flip=sign_flip([deltas]) if has_pairs else None,
        smallest_p=smallest_p(delta.n) if has_pairs else None,
        look=pairing.look,
        looks=draft.looks,
        pairs=tuple(Pair(pair.seed, a, b, b - a) for pair, a, b in pair_losses),
        domains=tuple(_domain_effects(pairing, delta.level)),
        without_outliers=effect_from_deltas(deltas[~outliers], level=delta.level) if outliers.any() else None,
        flags=flags,
        decision=ruling.decision,
        reason=ruling.reason,
        settle=next_step_for_rung(ruling, delta, flags, more_seeds),
        more_seeds=more_seeds,
        iso=iso_rows(pairing, level=delta.level),
        step_time=step_time(draft),
        speed_up=speed_up(draft),
        probability_b_better=_probability_b_better(pairing, delta),
    )


def _probability_b_better(pairing: PairedRuns, delta: Effect) -> Superiority | None:
    if pairing.paired:
        return probability_b_better(delta, pairing.control_losses, pairing.treatment_losses, paired=True)
    losses = pairing.all_control_losses, pairing.all_treatment_losses
    return probability_b_better(delta, *losses, paired=False)


def _context_flags(pairing: PairedRuns, context: TreatmentContext, k: Multiplier | None) -> set[str]:
    """Return the flags that depend on other rungs or on tuning."""
    seeds = [pair.seed for pair in pairing.pairs]
    flags = tuning_flags(context.tuning, pairing.control, pairing.variant, seeds)
    flags |= set(k.flags) if k else {"NO_SLOPE"}
    if asks_for_tuning(pairing) and not {pairing.control, pairing.variant} <= context.tuning.keys():
        flags.add("UNEQUAL_TUNING")
    if context.floor_mismatch and len(pairing.pairs) in (2, 3):
        flags.add("VARIANCE_MISMATCH")
    if context.damaged:
        flags.add("DAMAGED")
    if context.timing.scale == pairing.scale and context.timing.is_noisy(pairing.variant):
        flags.add("NOISY_TIMING")
    if context.rule.match is Axis.seconds and _seconds_unmatched(pairing, context.timing):
        flags.add("UNMATCHED")
    if context.outliers[pairing.scale].any():
        flags.add("OUTLIER_SEED")
    if paths_far_above(pairing, context.noise_sd.get(pairing.scale)):
        flags.add("DIVERGED")
    return flags


def _seconds_unmatched(pairing: PairedRuns, timing: StepTiming) -> bool:
    """Return True if the device-seconds of the runs of a sweep, steps times timed seconds a step, are unequal
    or not known at this scale. Logs have their own column."""
    if not all(pairing.judged_results):
        return False
    (control, first), (_, other) = (results[0] for results in pairing.judged_results)
    ratio = timing.ratios.get(pairing.variant) if timing.scale == pairing.scale else None
    if ratio is None or timing.is_noisy(pairing.variant):
        return not control.terms.from_log
    return amounts_differ(first.step, other.step * ratio.ratio, Axis.seconds)


def _noise_sd(
    pairing: PairedRuns, floors: Mapping[str, NoiseFloor], deltas: Sequence[np.ndarray]
) -> float | None:
    """Return the SD of an A/A difference: the library's, else a robust one from six or more pairs."""
    if floor := floors.get(pairing.scale):
        return floor.s0
    gaps = np.concatenate([np.abs(d - np.median(d)) for d in deltas if d.size > 1] or [np.zeros(0)])
    return max(1.4826 * float(np.median(gaps)), 0.002) if gaps.size >= 6 else None


def _flops_ratio(pairing: PairedRuns) -> float | None:
    if not all(pairing.judged_results):
        return None
    runs = (results[0][0] for results in pairing.judged_results)
    control, treatment = (run.provenance.facts.flops_per_token for run in runs)
    return treatment / control if control > 0 and treatment > 0 else None


def _domain_effects(pairing: PairedRuns, level: float) -> Iterator[DomainEffect]:
    """Yield the difference on each domain that all runs of the pairs were evaluated on."""
    controls = [pair.control_result.by_domain for pair in pairing.pairs]
    treatments = [pair.treatment_result.by_domain for pair in pairing.pairs]
    test = paired_effect if pairing.paired else welch_effect
    for name in sorted(set.intersection(*map(set, controls + treatments))) if controls else ():
        a, b = (np.array([losses[name] for losses in group]) for group in (controls, treatments))
        yield DomainEffect(name, _mean(a), _mean(b), test(a, b, level=level))


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None
