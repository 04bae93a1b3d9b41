"""Which variant should a larger run take? ln k of the largest scale, carried to the target of the rule."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.compare.results.comparison import Rule
from harness.compare.results.verdict_types import BetVerdict
from harness.compare.stats.bet import DATA_DRIFT, Bet, BetDecision, Drift, bet_at
from harness.compare.stats.distributions import t_critical
from harness.compare.verdict.decide import MAX_MORE_SEEDS, explain_flags, seeds_text
from harness.compare.verdict.flags import WITHHOLDS_DIRECTION, blocking_flags
from harness.compare.verdict.largest_scale import largest_draft
from harness.compare.verdict.per_scale import DraftRung

TARGET_RATIO = 10.0
"""Default target: FLOPs over those of the largest scale."""
FAR_RATIO = 100.0
"""Ratio of FLOPs above which a target is far from everything that was trained."""


def estimate_bet(drafts: Sequence[DraftRung]) -> Bet | None:
    """Return ln k at the target. None if a flag blocks the comparison, the largest scale has no interval or
    no FLOPs, or the target is not beyond it."""
    last, rule = largest_draft(drafts), drafts[0].context.rule
    if last is None or any(blocking_flags(draft.flags) for draft in drafts) or last.k is None:
        return None
    points = [(flops, draft.k) for draft in drafts if draft.k and (flops := _control_flops(draft))]
    flops = _control_flops(last)
    if not flops:
        return None
    target = rule.target or TARGET_RATIO * flops
    return bet_at([math.log(x) for x, _ in points], [k for _, k in points], target, declared_drift(drafts))


def declared_drift(drafts: Sequence[DraftRung]) -> Drift:
    """Return the drift of the rule; without one that of the kind of question."""
    rule = drafts[0].context.rule
    runs = [run for d in drafts for run in (*d.pairing.control_runs, *d.pairing.treatment_runs)]
    nodes = {node for run in runs for node in run.provenance.touches}
    touches_data = any(node == "data" or node.startswith("data.") for node in nodes)
    default = DATA_DRIFT if touches_data else Drift()
    return Drift(rule.drift, default.df) if rule.drift else default


def judge_bet(drafts: Sequence[DraftRung], estimate: Bet | None, p_holm: float | None) -> BetVerdict | None:
    """Decide a bet from its estimate and the one-sided p, corrected over the treatments."""
    last = largest_draft(drafts)
    if estimate is None or last is None:
        return None
    rule, pairing = last.context.rule, last.pairing
    decision = estimate.decide(1.0 if p_holm is None else p_holm, rule.bet_margin, rule.alpha)
    withheld = sorted(WITHHOLDS_DIRECTION.intersection(flag for draft in drafts for flag in draft.flags))
    if withheld and decision in (BetDecision.BET_A, BetDecision.BET_B):
        decision = BetDecision.OPEN
    flags = bet_flags(drafts, estimate, p_holm)
    lean = pairing.variant if estimate.log_k > 0 else pairing.control if estimate.log_k < 0 else ""
    settle = _next_step(estimate, last.delta.n) if decision is BetDecision.OPEN else ""
    reason = explain_flags(withheld) if withheld else _reason(decision, estimate, rule, flags)
    return BetVerdict(decision, estimate, p_holm, lean, declared_drift(drafts), reason, settle)


def _control_flops(draft: DraftRung) -> float:
    """Return the model FLOPs of one control run; 0 if they are not known."""
    controls, _ = draft.pairing.judged_results
    return controls[0][1].flops if controls else 0.0


def bet_flags(drafts: Sequence[DraftRung], estimate: Bet, p_holm: float | None) -> tuple[str, ...]:
    """Return the flags of a bet."""
    last, rule = largest_draft(drafts), drafts[0].context.rule
    flops = _control_flops(last) if last else 0.0
    conditions = {
        "ONE_SCALE": sum(draft.k is not None for draft in drafts) == 1,
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
