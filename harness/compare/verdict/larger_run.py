"""Bet on a larger run: ln k of the largest scale, carried to the target of the rule."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from harness.compare.results.comparison import Rule
from harness.compare.results.verdict_types import BetVerdict, Rung, on_axis
from harness.compare.stats.bet import DATA_DRIFT, Bet, BetDecision, Drift, bet_at
from harness.compare.stats.distributions import t_critical
from harness.compare.stats.multiple_testing import holm
from harness.compare.verdict.decide import MAX_MORE_SEEDS, explain_flags, seeds_text
from harness.compare.verdict.flags import WITHHOLDS_DIRECTION, blocking_flags
from harness.config.schema.decision import Axis

TARGET_RATIO = 10.0
"""Default target: FLOPs over those of the largest scale."""
SAME_SCALE = 0.01
"""Relative difference of FLOPs up to which a target is the largest scale itself."""
FAR_RATIO = 100.0
"""Ratio of FLOPs above which a target is far from everything that was trained."""


def judge_bets(
    rule: Rule,
    rungs: Mapping[str, Sequence[Rung]],
    drifts: Mapping[str, Drift],
    target_flops: float | None = None,
) -> dict[str, BetVerdict | None]:
    """Return the bet on each treatment for a run of `target_flops`; None: the target of the rule. rungs: the
    scales of each treatment, smallest first. A bet is None where `estimate_bet` is."""
    bets = {name: estimate_bet(rule, scales, drifts[name], target_flops) for name, scales in rungs.items()}
    p_holm = holm([bet.p if bet else None for bet in bets.values()], len(rule.family))
    return {
        name: judge_bet(rule, rungs[name], bet, p, drifts[name]) if bet else None
        for (name, bet), p in zip(bets.items(), p_holm, strict=True)
    }


def estimate_bet(
    rule: Rule, rungs: Sequence[Rung], drift: Drift, target_flops: float | None = None
) -> Bet | None:
    """Return ln k of one treatment at the target, on the axis of `bet_axis`. None if a flag blocks the
    comparison, the largest scale has no interval or no FLOPs, or the target is not beyond it."""
    last = largest_rung(rungs)
    if last is None or any(blocking_flags(rung.flags) for rung in rungs) or not last.k or not last.flops:
        return None
    target = target_flops or rule.target or TARGET_RATIO * last.flops
    axis = bet_axis(rule, last, target)
    scales = [last] if axis is Axis.seconds else rungs
    points = [
        (math.log(rung.flops), k)
        for rung in scales
        if rung.flops and (k := on_axis(axis, rung.k, rung.speed_up))
    ]
    return bet_at([x for x, _ in points], [k for _, k in points], target, drift)


def bet_axis(rule: Rule, last: Rung, target_flops: float) -> Axis:
    """Return the axis of a bet: that of the rule, but tokens where it is seconds and the steps were not timed
    at the target. The ratio of step times of a smaller scale is never carried up."""
    at_target = last.flops is not None and math.isclose(target_flops, last.flops, rel_tol=SAME_SCALE)
    timed = at_target and last.speed_up is not None and last.speed_up.log_se is not None
    return Axis.tokens if rule.axis is Axis.seconds and not timed else rule.axis


def largest_rung(rungs: Sequence[Rung]) -> Rung | None:
    """Return the largest scale that has a result; None if none has."""
    return next((rung for rung in reversed(rungs) if rung.n), None)


def declared_drift(rule: Rule, touches: Iterable[str]) -> Drift:
    """Return the drift of the rule; without one that of the kind of question. touches: the nodes of the
    config that the variants declare."""
    default = DATA_DRIFT if asks_about_data(touches) else Drift()
    return Drift(rule.drift or default.sd, rule.drift_df)


def asks_about_data(touches: Iterable[str]) -> bool:
    """Return whether the nodes that variants declare make a question about the data."""
    return any(node == "data" or node.startswith("data.") for node in touches)


def judge_bet(
    rule: Rule, rungs: Sequence[Rung], estimate: Bet, p_holm: float | None, drift: Drift
) -> BetVerdict:
    """Decide a bet from its estimate and the one-sided p, corrected over the treatments."""
    last = largest_rung(rungs) or rungs[-1]
    decision = estimate.decide(1.0 if p_holm is None else p_holm, rule.bet_margin, rule.alpha)
    withheld = sorted(WITHHOLDS_DIRECTION.intersection(flag for rung in rungs for flag in rung.flags))
    if withheld and decision in (BetDecision.BET_A, BetDecision.BET_B):
        decision = BetDecision.OPEN
    axis = bet_axis(rule, last, estimate.target_flops)
    flags = _bet_flags(rule, rungs, estimate, p_holm)
    if missing_times := _without_step_times(rule, axis, last):
        decision, withheld, flags = BetDecision.OPEN, [missing_times], tuple(sorted({*flags, missing_times}))
    lean = last.variant if estimate.log_k > 0 else last.control if estimate.log_k < 0 else ""
    settle = _next_step(estimate, last.n) if decision is BetDecision.OPEN else ""
    settle = "time the steps at the target's shape, on a host without other work" if missing_times else settle
    reason = explain_flags(withheld) if withheld else _reason(decision, estimate, rule, flags)
    return BetVerdict(decision, estimate, p_holm, lean, drift, reason, settle, flags, axis)


def _without_step_times(rule: Rule, axis: Axis, last: Rung) -> str:
    """Return the flag because of which a rule in seconds leaves a bet open; empty if none does."""
    if rule.axis is not Axis.seconds:
        return ""
    if axis is not Axis.seconds:
        return "TARGET_UNTIMED"
    return "NOISY_TIMING" if "NOISY_TIMING" in last.flags else ""


def _bet_flags(rule: Rule, rungs: Sequence[Rung], estimate: Bet, p_holm: float | None) -> tuple[str, ...]:
    last = largest_rung(rungs)
    flops = last.flops or 0.0 if last else 0.0
    conditions = {
        "ONE_SCALE": sum(rung.k is not None for rung in rungs) == 1,
        "TREND_AGAINST": estimate.against_line and p_holm is not None and p_holm < rule.alpha,
        "DECLARED_DRIFT": estimate.seen_df < 1,
        "TARGET_FAR": estimate.target_flops > FAR_RATIO * flops,
    }
    return tuple(flag for flag, present in conditions.items() if present)


def _reason(decision: BetDecision, estimate: Bet, rule: Rule, flags: Sequence[str]) -> str:
    if decision is BetDecision.EITHER:
        return f"k there lies within {100 * rule.bet_margin:g} % of 1"
    if decision is not BetDecision.OPEN:
        return "k there is clear of 1"
    if "TREND_AGAINST" in flags:
        return explain_flags(["TREND_AGAINST"])
    return "k there is not clear of 1"


def _next_step(estimate: Bet, n: int) -> str:
    """Return what would settle an open bet. Seeds shrink only the part of the variance that is theirs."""
    if estimate.no_seeds_help or estimate.against_line:
        return "the next scale, or a nearer target; no number of seeds would"
    seed_variance = estimate.se**2 - estimate.drift_variance
    for more in range(1, MAX_MORE_SEEDS + 1):
        se = math.sqrt(seed_variance * n / (n + more) + estimate.drift_variance)
        if t_critical(estimate.df, 0.90) * se < abs(estimate.log_k):
            return f"about {seeds_text(more)}, if k stays as it is; or the next scale"
    return "the next scale: seeds alone do not outweigh the drift"
