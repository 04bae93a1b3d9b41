"""Wording of estimates, flags and decisions, the same in page, terminal and Markdown."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

from harness.compare.results.context_types import RunState
from harness.compare.results.verdict_types import Decision, Ladder
from harness.compare.stats.estimates import Direction, Effect, Estimand, Multiplier, Projection, SlopeAxis
from harness.core.number_format import (
    MISSING,
    format_number,
    format_p_statement,
    format_scientific,
    format_signed,
    plain_text,
)

DIRECTION_TEXT = {
    Direction.SHRINKS: "the difference shrinks with scale",
    Direction.GROWS: "the difference grows with scale",
    Direction.HOLDS: "the difference holds with scale",
    Direction.UNRESOLVED: "how the difference changes with scale is unresolved",
}

MULTIPLIED = {SlopeAxis.k_tokens: "tokens", SlopeAxis.k_compute: "compute"}
"""Quantity that k multiplies."""


def verdict_sentences(verdict: str) -> list[str]:
    """Split the verdict into one sentence per treatment; each begins with its decision."""
    words = "|".join(decision.value for decision in Decision)
    return re.split(rf"(?<=\.) (?=(?:{words}): )", plain_text(verdict))


def decision_text(decision: Decision, *, treatment: str, control: str) -> str:
    """Return the decision with the variants' names instead of A and B."""
    return {
        Decision.B_BETTER: f"{treatment} is better",
        Decision.A_BETTER: f"{control} is better",
        Decision.EQUIVALENT: "practically equal",
        Decision.INCONCLUSIVE: "inconclusive",
        Decision.INVALID: "invalid",
    }[decision]


def format_effect(item: Effect) -> str:
    """Return a difference with its interval, and the level of the interval if that is not 95 %."""
    if item.low is None or item.high is None:
        return format_signed(item.mean)
    level = "" if item.level == 0.95 else f" ({100 * item.level:.3g} %)"
    return f"{format_signed(item.mean)} [{format_signed(item.low)}, {format_signed(item.high)}]{level}"


def format_multiplier(item: Multiplier | None) -> str:
    """Return k with its interval, k alone, or a dash."""
    if item is None or item.k is None:
        return MISSING
    if item.low is None or item.high is None:
        return f"{item.k:.3f}"
    return format_multiplier_interval(item.k, item.low, item.high)


def format_multiplier_interval(middle: float, low: float, high: float) -> str:
    """Return `k [low, high]` with three decimals."""
    return f"{middle:.3f} [{low:.3f}, {high:.3f}]"


def estimand_text(item: Effect) -> str:
    """Return what an interval is an estimate of, for labels."""
    if item.estimand is Estimand.trajectory_only or item.n < 2:
        return f"these trajectories only, n = {item.n}"
    return f"population of seeds, n = {item.n}"


def run_count(count: int) -> str:
    """Return `1 run` or `2 runs`."""
    return f"{count} run{'s' * (count != 1)}"


def state_counts(runs: Sequence[RunState]) -> str:
    """Return the end states of runs with their numbers: `26 finished, 1 failed`."""
    counts = Counter(run.state for run in runs)
    return ", ".join(f"{count} {state}" for state, count in counts.items())


def input_wait_text(shares: Mapping[str, float]) -> str:
    """Return a sentence on the share of training time that runs waited for input; '' without data."""
    if not shares:
        return ""
    worst = max(shares, key=lambda run: shares[run])
    return plain_text(
        "Reading batches and copying them to the devices, in part while the devices were busy: "
        f"{100 * statistics.median(shares.values()):.2g} % of the training time of the median run, "
        f"{100 * shares[worst]:.2g} % of the worst ({worst})."
    )


def pooled_text(ladder: Ladder) -> str:
    """Return what the pooled k multiplies, over how many scales and pairs, and its p-value."""
    scales = f"{len(ladder.scales)} scale{'s' * (len(ladder.scales) != 1)}"
    if ladder.k is None or ladder.k.k is None:
        return f"no multiplier over {scales}"
    p = f", {format_p_statement(ladder.p_holm)} (Holm)" if ladder.p_holm is not None else ""
    return (
        f"{ladder.k.estimand.value}: multiplier of {MULTIPLIED[ladder.k.estimand]}, "
        f"pooled over {scales}, n = {ladder.k.n} pairs{p}"
    )


def ladder_lines(ladder: Ladder) -> list[str]:
    """Return one sentence each on trend, projection and equivalence over all scales."""
    lines = []
    if ladder.k_compute and ladder.k_compute.k is not None:
        lines.append(f"Along the ladder, in compute: k = {format_multiplier(ladder.k_compute)}.")
    if trend := ladder.trend:
        gamma = f"{trend.gamma:+.3f} [{trend.low:+.3f}, {trend.high:+.3f}]"
        lines.append(
            f"{trend.direction.value}: {DIRECTION_TEXT[trend.direction]} "
            f"(ln k by {gamma} per e-fold of compute, {trend.scales} scales)."
        )
    if ladder.projection:
        lines.append(_projection_text(ladder.projection))
    test = ladder.equivalence
    if test and test.p is not None and (test.passed or ladder.decision is Decision.INCONCLUSIVE):
        outcome = "passes" if test.passed else "does not pass"
        p = format_p_statement(test.p)
        lines.append(f"Equivalence within ±{format_number(test.margin, 2)} in ln k {outcome} ({p}).")
    return lines


def _projection_text(projection: Projection) -> str:
    k = format_multiplier_interval(projection.k, projection.low, projection.high)
    text = f"At {format_scientific(projection.flops)} FLOPs: k = {k} (prediction interval, EXTRAPOLATION)"
    if projection.crossing_flops:
        text += f"; the line crosses k = 1 at {format_scientific(projection.crossing_flops)} FLOPs"
    return text + "."
