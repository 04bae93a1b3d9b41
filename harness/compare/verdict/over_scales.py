"""Treatment over all scales: the answers HERE and BET; pooled multiplier and trend describe it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from harness.compare.results.comparison import Rule
from harness.compare.results.verdict_types import BetVerdict, Ladder, Rung
from harness.compare.stats.across_scales import AcrossScales, across_scales
from harness.compare.stats.compute_multiplier import pooled_multiplier
from harness.compare.stats.estimates import Multiplier
from harness.compare.stats.heterogeneity import LEVEL, heterogeneity_p
from harness.compare.stats.multiple_testing import sign_flip, smallest_p
from harness.compare.stats.scale_trend import project, trend
from harness.compare.verdict.decide import decide_largest_scale, next_step_for_ladder
from harness.compare.verdict.flags import blocking_flags
from harness.compare.verdict.larger_run import declared_drift, judge_bets
from harness.compare.verdict.largest_scale import (
    CorrectedTest,
    correct_on_axis,
    largest_draft,
    largest_scale_numbers,
)
from harness.compare.verdict.per_scale import DraftRung
from harness.records.run.training_target import END


def judge_ladders(
    rule: Rule,
    ladders: Mapping[str, Sequence[DraftRung]],
    rungs: Mapping[str, Sequence[Rung]],
) -> tuple[Ladder, ...]:
    """Judge each treatment over its scales, on the axis of the rule."""
    tests = correct_on_axis(ladders, rule, rule.axis)
    drifts = {name: declared_drift(rule, _touched_nodes(drafts)) for name, drafts in ladders.items()}
    bets = judge_bets(rule, rungs, drifts)
    without_bets = [_judge_ladder(drafts, rungs[name], tests[name]) for name, drafts in ladders.items()]
    return tuple(_add_bet(ladder, bets[ladder.variant]) for ladder in without_bets)


def _touched_nodes(drafts: Sequence[DraftRung]) -> set[str]:
    """Return the nodes of the config that the variants declare."""
    runs = [run for d in drafts for run in (*d.pairing.control_runs, *d.pairing.treatment_runs)]
    return {node for run in runs for node in run.provenance.touches}


def _add_bet(ladder: Ladder, bet: BetVerdict | None) -> Ladder:
    if bet is None:
        return ladder
    return dataclasses.replace(ladder, bet=bet, flags=tuple(sorted({*ladder.flags, *bet.flags})))


def _judge_ladder(drafts: Sequence[DraftRung], rungs: Sequence[Rung], test: CorrectedTest) -> Ladder:
    """Return the ladder of one treatment with all its numbers but the bet's."""
    rule, pairing = drafts[0].context.rule, drafts[0].pairing
    judged_rungs = [rung for rung in rungs if rung.n]
    draft, largest = largest_draft(drafts), judged_rungs[-1] if judged_rungs else None
    pooled, heterogeneity = _pool_multipliers(drafts), heterogeneity_p([d.k for d in drafts if d.k])
    differ = heterogeneity is not None and heterogeneity < LEVEL
    flags = _ladder_flags(drafts, differ)
    largest_scale = largest_scale_numbers(draft, largest, test) if draft and largest else None
    ruling = decide_largest_scale(largest, largest_scale, flags, rule.alpha)
    paired_drafts = [draft for draft in drafts if draft.pairing.paired and len(draft.pairing.pairs) > 1]
    deltas = [draft.pairing.loss_differences for draft in paired_drafts]
    slopes = [draft.k and draft.k.slope for draft in paired_drafts]
    log_compute, multipliers = _trend_points(drafts, rungs)
    sign = math.copysign(1.0, pooled.log_k) if pooled and pooled.log_k else 1.0
    return Ladder(
        variant=pairing.variant,
        control=rule.control,
        positive_control=pairing.variant == rule.positive_control,
        scales=tuple(rung.scale for rung in judged_rungs),
        largest_scale=largest_scale,
        bet=None,
        k=None if differ else pooled,
        heterogeneity_p=heterogeneity,
        trend=trend(log_compute, multipliers, sign=sign),
        projection=project(log_compute, multipliers),
        sign_flip=sign_flip(deltas, [slope if slope and slope > 0 else 1.0 for slope in slopes]),
        smallest_p=smallest_p(sum(len(draft.pairing.pairs) for draft in paired_drafts)),
        k_compute=_pooled_k_compute(drafts, pooled),
        flags=flags,
        decision=ruling.decision,
        reason=ruling.reason,
        across_scales=_across_scales(drafts, flags),
        settle=next_step_for_ladder(ruling, flags, largest, largest_scale),
    )


def _across_scales(drafts: Sequence[DraftRung], flags: Sequence[str]) -> AcrossScales | None:
    """Return the mean over scales if each has one seed, and nothing but that blocks the comparison."""
    if any(draft.delta.n > 1 for draft in drafts) or set(blocking_flags(flags)) - {"NO_SEED_REPLICATION"}:
        return None
    return across_scales([d.k.log_k for d in drafts if d.k and d.k.log_k is not None])


def _ladder_flags(drafts: Sequence[DraftRung], differ: bool) -> tuple[str, ...]:
    flags = {flag for draft in drafts for flag in draft.flags}
    flags |= {"OPTIONAL_STOPPING"} if _stopped_early(drafts) else set()
    return tuple(sorted(flags | ({"HETEROGENEOUS"} if differ else set())))


def _pool_multipliers(drafts: Sequence[DraftRung]) -> Multiplier | None:
    """Return the pooled multiplier of the rungs that have one; None if none has."""
    pooled = pooled_multiplier([draft.k for draft in drafts if draft.k])
    ratios = [draft.k.k_per_flop for draft in drafts if draft.k and draft.k.k_per_flop is not None]
    if pooled and _stopped_early(drafts):
        pooled = dataclasses.replace(pooled, flags=tuple(sorted({*pooled.flags, "OPTIONAL_STOPPING"})))
    if pooled is None or not ratios or pooled.k is None:
        return pooled
    shares = [math.log(d.k.k / d.k.k_per_flop) for d in drafts if d.k and d.k.k and d.k.k_per_flop]
    return dataclasses.replace(pooled, k_per_flop=pooled.k / math.exp(sum(shares) / len(shares)))


def _stopped_early(drafts: Sequence[DraftRung]) -> bool:
    return any(draft.position and draft.pairing.look != END for draft in drafts)


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
