"""Treatment over all scales: pooled multiplier, trend, projection and decision."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from harness.compare.results.comparison import Rule
from harness.compare.results.verdict_types import Equivalence, Ladder, Rung
from harness.compare.stats.compute_multiplier import pooled_multiplier
from harness.compare.stats.distributions import t_critical
from harness.compare.stats.estimates import Multiplier
from harness.compare.stats.multiple_testing import sign_flip, smallest_p, tost
from harness.compare.stats.scale_trend import project, trend
from harness.compare.verdict.decide import decide_over_scales, next_step_for_ladder
from harness.compare.verdict.per_scale import DraftRung
from harness.records.run.training_target import END


def pool_multipliers(drafts: Sequence[DraftRung]) -> Multiplier | None:
    """Return the pooled multiplier of the rungs that have one; None if none has."""
    pooled = pooled_multiplier([draft.k for draft in drafts if draft.k])
    ratios = [draft.k.k_per_flop for draft in drafts if draft.k and draft.k.k_per_flop is not None]
    if pooled and _stopped_early(drafts):
        pooled = dataclasses.replace(pooled, flags=tuple(sorted({*pooled.flags, "OPTIONAL_STOPPING"})))
    if pooled is None or not ratios or pooled.k is None:
        return pooled
    shares = [math.log(d.k.k / d.k.k_per_flop) for d in drafts if d.k and d.k.k and d.k.k_per_flop]
    return dataclasses.replace(pooled, k_per_flop=pooled.k / math.exp(sum(shares) / len(shares)))


def pooled_p(pooled: Multiplier | None, drafts: Sequence[DraftRung]) -> float | None:
    """Return the p of the pooled multiplier; with looks the larger of it and the sequential p of the largest
    scale trained. That one is valid, the pooled p alone is not: scales stop depending on their results."""
    largest = next((draft for draft in reversed(drafts) if draft.delta.n), None)
    if pooled is None or pooled.p is None or largest is None or largest.position is None:
        return pooled.p if pooled else None
    return None if largest.p is None else max(pooled.p, largest.p)


def judge_ladder(
    rule: Rule,
    drafts: Sequence[DraftRung],
    rungs: Sequence[Rung],
    pooled: Multiplier | None,
    p: float | None,
    p_holm: float | None,
    level: float,
) -> Ladder:
    """Judge one treatment over its scales and return all its numbers with the decision.

    p, p_holm: p of `pooled` and its Holm adjustment over the treatments; level: at which Holm tests it.
    """
    low, high = _holm_interval(pooled, level)
    flags = {flag for draft in drafts for flag in draft.flags}
    flags = tuple(sorted(flags | ({"OPTIONAL_STOPPING"} if _stopped_early(drafts) else set())))
    judged_rungs = [rung for rung in rungs if rung.n]
    p_tost = tost(pooled.log_k, pooled.log_se, pooled.df, rule.margin) if pooled else None
    ruling = decide_over_scales(rule, judged_rungs, pooled, low, high, p_tost, flags)
    paired_drafts = [draft for draft in drafts if draft.pairing.paired and len(draft.pairing.pairs) > 1]
    deltas = [draft.pairing.loss_differences for draft in paired_drafts]
    slopes = [draft.k and draft.k.slope for draft in paired_drafts]
    more_seeds = max((rung.more_seeds for rung in judged_rungs if rung.more_seeds), default=None)
    log_compute, multipliers = _trend_points(drafts, rungs)
    is_equivalent = p_tost is not None and p_tost < rule.alpha
    sign = math.copysign(1.0, pooled.log_k) if pooled and pooled.log_k else 1.0
    return Ladder(
        variant=drafts[0].pairing.variant,
        control=rule.control,
        positive_control=drafts[0].pairing.variant == rule.positive_control,
        scales=tuple(rung.scale for rung in judged_rungs),
        k=pooled,
        p=p,
        p_holm=p_holm,
        holm_low=low,
        holm_high=high,
        trend=trend(log_compute, multipliers, sign=sign),
        projection=project(log_compute, multipliers),
        sign_flip=sign_flip(deltas, [slope if slope and slope > 0 else 1.0 for slope in slopes]),
        smallest_p=smallest_p(sum(len(draft.pairing.pairs) for draft in paired_drafts)),
        equivalence=Equivalence(rule.margin, p_tost, is_equivalent) if pooled else None,
        k_compute=_pooled_k_compute(drafts, pooled),
        flags=flags,
        decision=ruling.decision,
        reason=ruling.reason,
        settle=next_step_for_ladder(ruling, flags, more_seeds, pooled, len(judged_rungs)),
    )


def _stopped_early(drafts: Sequence[DraftRung]) -> bool:
    return any(draft.position and draft.pairing.look != END for draft in drafts)


def _holm_interval(pooled: Multiplier | None, level: float) -> tuple[float | None, float | None]:
    """Return the pooled interval of ln k at the Holm-adjusted level."""
    if pooled is None or pooled.log_k is None or pooled.log_se is None or pooled.df is None:
        return None, None
    half = t_critical(pooled.df, 1 - level) * pooled.log_se
    return pooled.log_k - half, pooled.log_k + half


def _trend_points(drafts: Sequence[DraftRung], rungs: Sequence[Rung]) -> tuple[list[float], list[Multiplier]]:
    """Return ln FLOPs and multiplier of each rung that has both."""
    pairs = [
        (math.log(rung.flops), draft.k)
        for draft, rung in zip(drafts, rungs, strict=True)
        if draft.k and rung.flops and rung.flops > 0
    ]
    return [x for x, _ in pairs], [k for _, k in pairs]


def _pooled_k_compute(drafts: Sequence[DraftRung], pooled: Multiplier | None) -> Multiplier | None:
    """Return the pooled multiplier along compute, if k itself is along tokens."""
    k_compute = pooled_multiplier([draft.k_ladder for draft in drafts if draft.k_ladder])
    return k_compute if k_compute and pooled and k_compute.estimand is not pooled.estimand else None
