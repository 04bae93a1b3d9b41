"""Decision rules: from numbers and flags to a decision, its reason and the next step to settle it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.compare.results.verdict_types import Decision, Equivalence, EquivalenceUnit, LargestScale, Rung
from harness.compare.stats.distributions import t_critical
from harness.compare.stats.estimates import Effect
from harness.compare.verdict.checks import REMEDIES
from harness.compare.verdict.flags import EXPLANATIONS, WITHHOLDS_DIRECTION, blocking_flags
from harness.config.schema.decision import Axis

DIRECTIONS = frozenset({Decision.A_BETTER, Decision.B_BETTER})
"""Decisions that call one variant better."""
AXIS_AMOUNTS = {Axis.tokens: "tokens", Axis.flops: "FLOPs", Axis.seconds: "device-seconds"}
"""Amounts that are equal where k on an axis is read."""
MAX_MORE_SEEDS = 200
"""Largest number of further pairs that is advised."""


@dataclass(frozen=True)
class Ruling:
    """A decision and its reason, one sentence."""

    decision: Decision
    reason: str


def decide_rung(
    delta: Effect, p_holm: float | None, equivalence: Equivalence | None, flags: Sequence[str], alpha: float
) -> Ruling:
    """Decide one scale. INVALID with a blocking flag; better if the Holm-adjusted p of the difference is
    below alpha; EQUIVALENT if the TOST passes; else INCONCLUSIVE."""
    if bad := blocking_flags(flags):
        return Ruling(Decision.INVALID, explain_flags(bad))
    if delta.mean is not None and p_holm is not None and p_holm < alpha:
        if withheld := sorted(WITHHOLDS_DIRECTION.intersection(flags)):
            return Ruling(Decision.INCONCLUSIVE, explain_flags(withheld))
        decision = Decision.B_BETTER if delta.mean < 0 else Decision.A_BETTER
        return Ruling(decision, f"the loss difference is clear of zero (Holm-adjusted p {p_holm:.2g})")
    if equivalence is not None and equivalence.passed:
        return Ruling(Decision.EQUIVALENT, f"{inside_margin(equivalence)} (TOST p {equivalence.p:.2g})")
    if delta.n < 2:
        return Ruling(Decision.INCONCLUSIVE, "fewer than two finished pairs")
    reason = (
        f"the loss difference is not clear of zero (Holm-adjusted p {p_holm:.2g})" if p_holm else "no test"
    )
    return Ruling(Decision.INCONCLUSIVE, reason)


def inside_margin(equivalence: Equivalence) -> str:
    """Return the clause that a test of equivalence shows if it passes."""
    if equivalence.unit is EquivalenceUnit.loss:
        return f"the loss difference lies within {equivalence.margin:g} of zero"
    return "k lies inside the margin around 1"


def decide_largest_scale(
    largest: Rung | None, answer: LargestScale | None, flags: Sequence[str], alpha: float
) -> Ruling:
    """Decide a ladder: by its largest scale that has a result, on the axis of the rule, unless a flag of any
    scale blocks."""
    if bad := blocking_flags(flags):
        return Ruling(Decision.INVALID, explain_flags(bad))
    if largest is None or answer is None:
        return Ruling(Decision.INCONCLUSIVE, "no scale has a result yet")
    ruling = Ruling(largest.decision, largest.reason)
    if answer.axis is not Axis.tokens:
        ruling = _decide_on_axis(largest, answer, alpha)
    if ruling.decision in DIRECTIONS and (withheld := sorted(WITHHOLDS_DIRECTION.intersection(flags))):
        return Ruling(Decision.INCONCLUSIVE, explain_flags(withheld))
    return ruling


def _decide_on_axis(largest: Rung, answer: LargestScale, alpha: float) -> Ruling:
    """Decide the largest scale by k at equal FLOPs or device-seconds: its Holm-adjusted p, then the TOST."""
    if answer.axis is Axis.seconds and "NOISY_TIMING" in largest.flags:
        return Ruling(Decision.INVALID, explain_flags(["NOISY_TIMING"]))
    if largest.n < 2:
        return Ruling(Decision.INCONCLUSIVE, "fewer than two finished pairs")
    k, name = answer.multiplier, f"k at equal {AXIS_AMOUNTS[answer.axis]}"
    if answer.axis is Axis.seconds and (answer.step_time is None or answer.step_time.se is None):
        return Ruling(Decision.INCONCLUSIVE, f"the step times at {answer.scale} were not measured")
    if k is None or k.log_k is None or answer.p_holm is None:
        return Ruling(Decision.INCONCLUSIVE, f"there is no interval of {name}")
    if answer.p_holm < alpha:
        decision = Decision.B_BETTER if k.log_k > 0 else Decision.A_BETTER
        return Ruling(decision, f"{name} is clear of 1 (Holm-adjusted p {answer.p_holm:.2g})")
    if answer.equivalence and answer.equivalence.passed:
        return Ruling(
            Decision.EQUIVALENT, f"{name} lies inside the margin (TOST p {answer.equivalence.p:.2g})"
        )
    return Ruling(Decision.INCONCLUSIVE, f"{name} is not clear of 1 (Holm-adjusted p {answer.p_holm:.2g})")


def explain_flags(flags: Sequence[str]) -> str:
    """Return each flag with its explanation."""
    return "; ".join(f"{flag}: {EXPLANATIONS.get(flag, flag)}" for flag in flags)


def seeds_to_halve(delta: Effect) -> int | None:
    """Return the number of further pairs that would halve the interval (if any) at the present noise."""
    if delta.n < 2 or delta.df is None or delta.se is None:
        return None
    goal = 0.5 * t_critical(delta.df, delta.level) / delta.n**0.5
    total = delta.n + 1
    while t_critical(delta.df + total - delta.n, delta.level) / total**0.5 > goal:
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
    return _more_seeds_text(more_seeds, clear) if more_seeds else "at least two seeds"


def next_step_for_ladder(
    ruling: Ruling, flags: Sequence[str], largest: Rung | None, answer: LargestScale | None
) -> str:
    """Return the next step that would settle a ladder; empty if it is settled. largest: rung of the largest
    scale that has a result, with its numbers `answer`."""
    if ruling.decision is Decision.INVALID:
        return _repair_text(flags) if blocking_flags(flags) else "time the steps on a host without other work"
    if ruling.decision is not Decision.INCONCLUSIVE:
        return ""
    if largest is None:
        return "finish the missing runs"
    finish = "finish the missing runs; " if "INCOMPLETE" in set(flags) - set(largest.flags) else ""
    if answer and answer.axis is not Axis.tokens:
        return finish + _next_step_on_axis(answer)
    return finish + largest.settle


def _next_step_on_axis(answer: LargestScale) -> str:
    """Return what would settle k on another axis than tokens."""
    k, timed = answer.multiplier, answer.step_time
    if answer.axis is Axis.seconds and (timed is None or timed.se is None):
        return "time the steps: the sweep command does, where it trains on this machine"
    if k is None or k.log_se is None:
        return "at least two seeds"
    if timed and timed.se and answer.axis is Axis.seconds and timed.se**2 > 0.5 * k.log_se**2:
        return "time the steps more precisely, on an idle machine"
    clear = seeds_to_clear(k.log_k, k.log_se, k.n, k.df, 0.95)
    halve = seeds_to_halve(answer.delta)
    return _more_seeds_text(halve, clear) if halve else "at least two seeds"


def _repair_text(flags: Sequence[str]) -> str:
    bad = blocking_flags(flags)
    if bad == ["NO_SEED_REPLICATION"]:
        return "more seeds, or several seeds at smaller scales"
    return "; ".join(f"{flag}: {REMEDIES[flag].rstrip('.')}" for flag in bad)


def _more_seeds_text(halve: int, clear: float | None) -> str:
    """Return how many seeds would help. Half the interval helps only if it then excludes zero."""
    if clear is None or clear <= halve:
        return f"{seeds_text(halve)} would halve the interval"
    if math.isinf(clear):
        more = f"more than {MAX_MORE_SEEDS} seeds"
        return f"{more}, because the difference is small against the noise of the seeds"
    return f"about {seeds_text(int(clear))}, if the difference stays as it is"


def seeds_text(count: int) -> str:
    """Return `1 more seed` or `2 more seeds`."""
    return f"{count} more seed{'s' if count > 1 else ''}"
