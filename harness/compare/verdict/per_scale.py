"""One treatment at one scale: the effect, its multiplier, its flags, and its decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.compare.inputs.pairing import Bout, Match
from harness.compare.results.comparison import Rule
from harness.compare.results.verdict_types import DomainEffect, Look, Pair, Rung
from harness.compare.stats.compute_multiplier import compute_multiplier
from harness.compare.stats.estimates import Effect, Multiplier
from harness.compare.stats.multiple_testing import sign_flip, smallest_p, tost
from harness.compare.stats.paired_effects import (
    NoiseFloor,
    correlation,
    effect_of,
    outliers,
    paired_effect,
    variance_mismatch,
    welch_effect,
)
from harness.compare.verdict.control_slopes import Slopes
from harness.compare.verdict.decide import rule_rung, seeds_to_halve, settle_rung
from harness.compare.verdict.flags import bout_flags, far_above, tuning_flags
from harness.compare.verdict.interim_looks import Standing, look_rows, peeked_p, standing_of
from harness.compare.verdict.iso_compute import iso_rows
from harness.records.run.training_target import END


@dataclass(frozen=True)
class Context:
    """What all rungs of one treatment share."""

    rule: Rule
    floors: Mapping[str, NoiseFloor]
    mismatch: bool
    """The A/A library was found too quiet for these pairs, and put aside."""
    noise: Mapping[str, float]
    """SD of a null difference by scale, for calling a divergence."""
    slopes: Slopes
    tuning: Mapping[str, Any]
    odd: Mapping[str, np.ndarray]
    """By scale, which pairs are outliers."""
    family: int
    """Treatments times scales."""


@dataclass(frozen=True)
class DraftRung:
    """A rung before Holm's adjustment over all of them."""

    bout: Bout
    delta: Effect
    p: float | None
    """What enters Holm's procedure: that of `delta`, or under looks the sequential one."""
    k: Multiplier | None
    k_ladder: Multiplier | None
    correlation: float | None
    flags: frozenset[str]
    looks: tuple[Look, ...]
    standing: Standing | None
    context: Context


def context_of(
    rule: Rule,
    bouts: Sequence[Bout],
    floors: Mapping[str, NoiseFloor],
    slopes: Slopes,
    tuning: Mapping[str, Any],
    family: int,
) -> Context:
    """Checks the A/A library, which speaks of full runs, against these pairs (pooled over scales), and
    looks for outliers."""
    floors = {bout.scale: floors[bout.scale] for bout in bouts if bout.look == END and bout.scale in floors}
    deltas = [bout.b - bout.a for bout in bouts]
    mismatch = variance_mismatch(deltas, [floors.get(bout.scale) for bout in bouts])
    odd = {bout.scale: found for bout, found in zip(bouts, outliers(deltas), strict=True)}
    noise = {bout.scale: value for bout in bouts if (value := _noise(bout, floors, deltas))}
    return Context(rule, {} if mismatch else floors, mismatch, noise, slopes, tuning, odd, family)


def draft_rung(bout: Bout, context: Context) -> DraftRung:
    """Effect, multiplier and flags of one rung."""
    standing, floor = standing_of(bout, context.rule), context.floors.get(bout.scale)
    delta = _delta(bout, floor, 1 - standing.alpha if standing else 0.95)
    looks = look_rows(bout, context.rule, context.family, floor)
    p = peeked_p(bout, looks, delta, standing) if standing else delta.p
    related = correlation(bout.a, bout.b)
    ratio = _flops_ratio(bout)
    slope = context.slopes.primary.get(bout.scale)
    ladder = context.slopes.ladder.get(bout.scale)
    k = compute_multiplier(delta, slope, flops_ratio=ratio) if slope else None
    k_ladder = compute_multiplier(delta, ladder, flops_ratio=ratio) if ladder else None
    flags = bout_flags(bout, delta, related) | _context_flags(bout, context, k)
    tempered = frozenset(_tempered(flags, bout))
    return DraftRung(bout, delta, p, k, k_ladder, related, tempered, looks, standing, context)


def finish_rung(draft: DraftRung, p_holm: float | None) -> Rung:
    """The rung as it is shown."""
    bout, delta, k, rule = draft.bout, draft.delta, draft.k, draft.context.rule
    flags = tuple(sorted(draft.flags))
    equivalence = _equivalence(draft)
    ruling = rule_rung(delta, p_holm, equivalence, flags, rule.alpha)
    more = seeds_to_halve(delta)
    first = next((match.a for match in bout.matches), None)
    odd = draft.context.odd[bout.scale]
    return Rung(
        scale=bout.scale,
        variant=bout.variant,
        control=bout.control,
        n=delta.n,
        paired=bout.paired,
        tokens=first.tokens if first else None,
        flops=first.flops if first else None,
        control_loss=_mean(bout.a if bout.paired else bout.a_all),
        treatment_loss=_mean(bout.b if bout.paired else bout.b_all),
        delta=delta,
        k=k,
        correlation=draft.correlation,
        method=delta.method,
        df=delta.df,
        p=draft.p,
        p_holm=p_holm,
        sign_flip=sign_flip([bout.b - bout.a]) if bout.paired and delta.n > 1 else None,
        smallest_p=smallest_p(delta.n) if bout.paired and delta.n > 1 else None,
        look=bout.look,
        looks=draft.looks,
        pairs=tuple(_pair(match) for match in bout.matches),
        domains=tuple(_domain(bout, name, delta.level) for name in _domain_names(bout)),
        without_outliers=effect_of((bout.b - bout.a)[~odd], level=delta.level) if odd.any() else None,
        flags=flags,
        decision=ruling.decision,
        reason=ruling.reason,
        settle=settle_rung(ruling, delta, flags, more),
        more_seeds=more,
        iso=iso_rows(bout, level=delta.level),
    )


def _delta(bout: Bout, floor: NoiseFloor | None, level: float) -> Effect:
    if bout.paired:
        return paired_effect(bout.a, bout.b, floor=floor, level=level)
    return welch_effect(bout.a_all, bout.b_all, level=level)


def _equivalence(draft: DraftRung) -> float | None:
    """p of the TOST of ln k, which under looks costs what its look may not spend."""
    k, margin = draft.k, draft.context.rule.margin
    p = tost(k.log_k, k.log_se, k.df, margin) if k else None
    return p if p is None or draft.standing is None else min(1.0, p * draft.standing.cost)


def _context_flags(bout: Bout, context: Context, k: Multiplier | None) -> set[str]:
    """Flags that one rung alone could not know."""
    seeds = [match.seed for match in bout.matches]
    flags = tuning_flags(context.tuning, bout.control, bout.variant, seeds)
    flags |= set(k.flags) if k else {"NO_SLOPE"}
    if context.mismatch and len(bout.matches) in (2, 3):
        flags.add("VARIANCE_MISMATCH")
    if context.odd[bout.scale].any():
        flags.add("OUTLIER_SEED")
    if far_above(bout, context.noise.get(bout.scale)):
        flags.add("DIVERGED")
    return flags


def _tempered(flags: set[str], bout: Bout) -> set[str]:
    """One pair is no lack of replication while others are still being trained."""
    seeds = {run.provenance.seed for run in (*bout.a_runs, *bout.b_runs)}
    if len(bout.matches) == 1 and len(seeds) > 1 and "INCOMPLETE" in flags and "DIVERGED" not in flags:
        return flags - {"NO_SEED_REPLICATION"}
    return flags


def _noise(bout: Bout, floors: Mapping[str, NoiseFloor], deltas: Sequence[np.ndarray]) -> float | None:
    """SD of a null difference: the library's, else a robust one of all pairs' deviations (six or more)."""
    if floor := floors.get(bout.scale):
        return floor.s0
    gaps = np.concatenate([np.abs(d - np.median(d)) for d in deltas if d.size > 1] or [np.zeros(0)])
    return max(1.4826 * float(np.median(gaps)), 0.002) if gaps.size >= 6 else None


def _flops_ratio(bout: Bout) -> float | None:
    for match in bout.matches:
        one, other = match.control.provenance.facts, match.treatment.provenance.facts
        known = one.flops_per_token > 0 and other.flops_per_token > 0
        return other.flops_per_token / one.flops_per_token if known else None
    return None


def _domain_names(bout: Bout) -> list[str]:
    names = [set(match.a.by_domain) & set(match.b.by_domain) for match in bout.matches]
    return sorted(set.intersection(*names)) if names else []


def _domain(bout: Bout, name: str, level: float) -> DomainEffect:
    a = np.array([match.a.by_domain[name] for match in bout.matches])
    b = np.array([match.b.by_domain[name] for match in bout.matches])
    test = paired_effect if bout.paired else welch_effect
    return DomainEffect(name, _mean(a), _mean(b), test(a, b, level=level))


def _pair(match: Match) -> Pair:
    return Pair(match.seed, match.a.loss, match.b.loss, match.b.loss - match.a.loss)


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None
