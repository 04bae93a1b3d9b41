"""Decision rules: from numbers and flags to a decision, its reason and the next step to settle it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.compare.results.verdict_types import Decision, Rung
from harness.compare.stats.distributions import t_critical
from harness.compare.stats.estimates import Effect
from harness.compare.verdict.flags import EXPLANATIONS, WITHHOLDS_DIRECTION, blocking_flags

DIRECTIONS = frozenset({Decision.A_BETTER, Decision.B_BETTER})
"""Decisions that call one variant better."""
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


def decide_here(largest: Rung | None, flags: Sequence[str]) -> Ruling:
    """Decide a ladder: by its largest scale that has a result, unless a flag of any scale blocks."""
    if bad := blocking_flags(flags):
        return Ruling(Decision.INVALID, explain_flags(bad))
    if largest is None:
        return Ruling(Decision.INCONCLUSIVE, "no scale has a result yet")
    if largest.decision in DIRECTIONS and (withheld := sorted(WITHHOLDS_DIRECTION.intersection(flags))):
        return Ruling(Decision.INCONCLUSIVE, explain_flags(withheld))
    return Ruling(largest.decision, largest.reason)


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


def next_step_for_ladder(ruling: Ruling, flags: Sequence[str], largest: Rung | None) -> str:
    """Return the next step that would settle a ladder; empty if it is settled. largest: rung of the largest
    scale that has a result."""
    if ruling.decision is Decision.INVALID:
        return _repair_text(flags)
    if ruling.decision is not Decision.INCONCLUSIVE:
        return ""
    if largest is None:
        return "finish the missing runs"
    finish = "finish the missing runs; " if "INCOMPLETE" in set(flags) - set(largest.flags) else ""
    return finish + largest.settle


def _repair_text(flags: Sequence[str]) -> str:
    bad = blocking_flags(flags)
    if bad == ["NO_SEED_REPLICATION"]:
        return "more seeds, or several seeds at smaller scales"
    return "fix the flagged problems: " + ", ".join(bad)


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
