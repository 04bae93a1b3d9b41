"""Decision rules: from numbers and flags to a decision, its reason and the next step to settle it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.compare.results.comparison import Rule
from harness.compare.results.verdict_types import Decision, Rung
from harness.compare.stats.distributions import t_critical
from harness.compare.stats.estimates import Effect, Multiplier
from harness.compare.verdict.flags import EXPLANATIONS, WITHHOLDS_DIRECTION, blocking_flags

MAX_MORE_SEEDS = 200
"""Largest number of further pairs that is advised."""


@dataclass(frozen=True)
class Ruling:
    """A decision and its reason, one sentence."""

    decision: Decision
    reason: str


def decide_rung(
    delta: Effect, p_holm: float | None, equivalence: float | None, flags: Sequence[str], alpha: float
) -> Ruling:
    """Decide one scale. INVALID with a blocking flag; better if the Holm-adjusted p of the difference is
    below alpha; EQUIVALENT if the TOST of ln k passes; else INCONCLUSIVE."""
    if bad := blocking_flags(flags):
        return Ruling(Decision.INVALID, explain_flags(bad))
    if delta.mean is not None and p_holm is not None and p_holm < alpha:
        if withheld := sorted(WITHHOLDS_DIRECTION.intersection(flags)):
            return Ruling(Decision.INCONCLUSIVE, explain_flags(withheld))
        decision = Decision.B_BETTER if delta.mean < 0 else Decision.A_BETTER
        return Ruling(decision, f"the loss difference is clear of zero (Holm-adjusted p {p_holm:.2g})")
    if equivalence is not None and equivalence < alpha:
        return Ruling(Decision.EQUIVALENT, f"k lies inside the margin around 1 (TOST p {equivalence:.2g})")
    if delta.n < 2:
        return Ruling(Decision.INCONCLUSIVE, "fewer than two finished pairs")
    reason = (
        f"the loss difference is not clear of zero (Holm-adjusted p {p_holm:.2g})" if p_holm else "no test"
    )
    return Ruling(Decision.INCONCLUSIVE, reason)


def decide_ladder(
    k: Multiplier | None,
    holm_low: float | None,
    holm_high: float | None,
    largest: Effect | None,
    equivalence: float | None,
    flags: Sequence[str],
    alpha: float,
) -> Ruling:
    """Decide over all scales. B_BETTER: the Holm-adjusted pooled interval of ln k lies above zero and the
    difference at the largest scale is negative; A_BETTER mirrored; EQUIVALENT if the TOST passes."""
    if bad := blocking_flags(flags):
        return Ruling(Decision.INVALID, explain_flags(bad))
    if k is None or holm_low is None or holm_high is None or largest is None or largest.mean is None:
        return Ruling(Decision.INCONCLUSIVE, "there is no pooled multiplier yet")
    if holm_low > 0 or holm_high < 0:
        if withheld := sorted(WITHHOLDS_DIRECTION.intersection(flags)):
            return Ruling(Decision.INCONCLUSIVE, explain_flags(withheld))
        return _decide_by_sign(holm_low > 0, largest.mean)
    if equivalence is not None and equivalence < alpha:
        return Ruling(Decision.EQUIVALENT, f"pooled k lies inside the margin (TOST p {equivalence:.2g})")
    reason = "the pooled interval of k holds 1 and is wider than the margin"
    return Ruling(Decision.INCONCLUSIVE, reason)


def decide_over_scales(
    rule: Rule, rungs: Sequence[Rung], pooled: Multiplier | None, low, high, equivalence, flags
) -> Ruling:
    """Decide one treatment over its judged rungs: by `decide_ladder`, or without a slope by single scales.

    Under interim looks a pooled decision holds only if the largest scale has it too, at its look's level.
    Pooling alone is not valid there, because scales stop depending on their results.
    """
    if pooled is None and rungs and all(rung.k is None for rung in rungs) and not blocking_flags(flags):
        return _decide_without_slope(rungs)
    largest = rungs[-1].delta if rungs else None
    ruling = decide_ladder(pooled, low, high, largest, equivalence, flags, rule.alpha)
    holds = (Decision.INCONCLUSIVE, Decision.INVALID, *(rung.decision for rung in rungs[-1:]))
    if not rule.uses_looks or not rungs or ruling.decision in holds:
        return ruling
    reason = f"{ruling.reason}; but with looks the largest scale must show it on its own"
    return Ruling(Decision.INCONCLUSIVE, reason)


def _decide_without_slope(rungs: Sequence[Rung]) -> Ruling:
    """Decide without a multiplier: a direction only if every scale shows it on its own."""
    if len(rungs) == 1:
        reason = f"{rungs[0].reason}; without a slope of the control there is no multiplier"
        return Ruling(rungs[0].decision, reason)
    decisions = {rung.decision for rung in rungs}
    if len(decisions) == 1 and decisions <= {Decision.A_BETTER, Decision.B_BETTER}:
        reason = "every scale judged shows it on its own; without a slope there is no multiplier"
        return Ruling(decisions.pop(), reason)
    return Ruling(Decision.INCONCLUSIVE, "the control has no slope, and the scales do not all agree")


def explain_flags(flags: Sequence[str]) -> str:
    """Return each flag with its explanation."""
    return "; ".join(f"{flag}: {EXPLANATIONS.get(flag, flag)}" for flag in flags)


def seeds_to_halve(delta: Effect) -> int | None:
    """Return the number of further pairs that would halve the interval (if any) at the present noise."""
    if delta.n < 2 or delta.df is None or delta.se is None:
        return None
    goal = 0.5 * t_critical(delta.df, delta.level) / delta.n**0.5
    total = delta.n + 1
    while t_critical(total - 1, delta.level) / total**0.5 > goal:
        total += 1
    return total - delta.n


def seeds_to_clear(
    estimate: float | None, se: float | None, n: int, df: float | None, level: float
) -> float | None:
    """Return the number of further pairs after which the interval excludes zero, if the estimate and its
    noise stay: inf above MAX_MORE_SEEDS, None without an interval. Each pair adds a degree of freedom."""
    if estimate is None or not se or df is None:
        return None
    for more in range(1, MAX_MORE_SEEDS + 1):
        if t_critical(df + more, level) * se * math.sqrt(n / (n + more)) < abs(estimate):
            return more
    return math.inf


def next_step_for_rung(ruling: Ruling, delta: Effect, flags: Sequence[str], more_seeds: int | None) -> str:
    """Return the next step that would settle one scale. `more_seeds` would halve the interval."""
    if ruling.decision is Decision.INVALID:
        return _repair_text(flags)
    if ruling.decision is not Decision.INCONCLUSIVE:
        return "settled at this scale; the next scale shows if it holds"
    if "INCOMPLETE" in flags:
        return "finish the missing runs"
    clear = seeds_to_clear(delta.mean, delta.se, delta.n, delta.df, delta.level)
    return _more_seeds_text(more_seeds, clear, "") if more_seeds else "at least two seeds"


def next_step_for_ladder(
    ruling: Ruling, flags: Sequence[str], more_seeds: int | None, pooled: Multiplier | None, scales: int
) -> str:
    """Return the next step that would settle the ladder of so many scales. `more_seeds` a scale would halve
    the interval of each."""
    if ruling.decision is Decision.INVALID:
        return _repair_text(flags)
    if ruling.decision is not Decision.INCONCLUSIVE:
        return "the next scale: the decision rests on the largest one trained"
    finish = "finish the missing runs; " if "INCOMPLETE" in flags else ""
    if not more_seeds:
        return f"{finish}more seeds"
    pairs = seeds_to_clear(pooled.log_k, pooled.log_se, pooled.n, pooled.df, 0.95) if pooled else None
    clear = None if pairs is None else math.ceil(pairs / scales) if math.isfinite(pairs) else pairs
    return finish + _more_seeds_text(more_seeds, clear, " a scale")


def _repair_text(flags: Sequence[str]) -> str:
    bad = blocking_flags(flags)
    if bad == ["NO_SEED_REPLICATION"]:
        return "more seeds, or several seeds at smaller scales"
    return "fix the flagged problems: " + ", ".join(bad)


def _more_seeds_text(halve: int, clear: float | None, where: str) -> str:
    """Return how many seeds would help. Half the interval helps only if it then excludes zero."""
    if clear is None or clear <= halve:
        return f"{_seeds_text(halve)}{where} would halve the interval"
    if math.isinf(clear):
        more = f"more than {MAX_MORE_SEEDS} seeds{where}"
        return f"{more}, because the difference is small against the noise of the seeds"
    return f"about {_seeds_text(int(clear))}{where}, if the difference stays as it is"


def _seeds_text(count: int) -> str:
    return f"{count} more seed{'s' if count > 1 else ''}"


def _decide_by_sign(treatment_better: bool, largest: float) -> Ruling:
    """Decide by the sign of a pooled interval of ln k that is clear of zero, if the largest scale agrees."""
    decision, side = (Decision.B_BETTER, "above") if treatment_better else (Decision.A_BETTER, "below")
    if largest < 0 if treatment_better else largest > 0:
        return Ruling(decision, f"the pooled interval of k lies {side} 1, and the largest scale agrees")
    return Ruling(Decision.INCONCLUSIVE, "the pooled multiplier and the largest scale point different ways")
