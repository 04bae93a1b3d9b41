"""Wording of estimates, flags and decisions, the same in page, terminal and Markdown."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

from harness.compare.results.comparison import Comparison
from harness.compare.results.context_types import RunState
from harness.compare.results.verdict_types import Decision, Ladder, LargestScale
from harness.compare.stats.estimates import (
    Direction,
    Effect,
    Estimand,
    Multiplier,
    Projection,
    SlopeAxis,
    Trend,
)
from harness.compare.stats.observed_power import MAX_SEEDS, ObservedPower
from harness.compare.verdict.verdict_text import (
    MULTIPLIED,
    PER,
    bet_sentence,
    cost_multipliers,
    decision_phrase,
    place_phrase,
)
from harness.config.schema.decision import Axis
from harness.core.number_format import (
    MISSING,
    format_number,
    format_p_statement,
    format_scientific,
    format_signed,
    plain_text,
)

DIRECTION_TEXT = {
    Direction.SHRINKS: "The difference shrinks with scale",
    Direction.GROWS: "The difference grows with scale",
    Direction.HOLDS: "The difference holds with scale",
    Direction.UNRESOLVED: "How the difference changes with scale is not settled",
}
PER_UNIT = {
    SlopeAxis.k_tokens: "per token",
    SlopeAxis.k_compute: "in compute",
    SlopeAxis.k_flops: "per FLOP",
    SlopeAxis.k_seconds: "per second",
}
"""Cost that k counts."""


def verdict_lines(comparison: Comparison) -> list[str]:
    """Return the verdict, one line per treatment."""
    return [plain_text(line) for line in comparison.verdict.split("\n")]


def k_meaning(comparison: Comparison) -> str:
    """Return what k and the brackets mean; '' if no treatment has a multiplier."""
    multipliers = [
        ladder.largest_scale.k for ladder in comparison.ladder
        if ladder.largest_scale and ladder.largest_scale.k and ladder.largest_scale.k.k is not None
    ]  # fmt: skip
    if not multipliers:
        return ""
    control, quantity = plain_text(comparison.rule.control), MULTIPLIED[multipliers[0].estimand]
    amount = f"as {'many' if quantity == 'tokens' else 'much'} {quantity}"
    timed = any(ladder.largest_scale and ladder.largest_scale.speed_up for ladder in comparison.ladder)
    s = " s is k per second, with the error of the timed steps." if timed else ""
    return (
        f"k: {control} needs k times {amount} for the same loss; above 1 the variant is better, below 1 "
        f"worse. Per FLOP and per second, k counts these instead.{s} In square brackets: 95 % intervals, "
        "where none other is named."
    )


def decision_line(ladder: Ladder) -> str:
    """Return the decision at the largest scale and its reason, with the code in brackets."""
    phrase = decision_phrase(ladder.decision, treatment=ladder.variant, control=ladder.control)
    return plain_text(f"{phrase}{place_phrase(ladder)}: {ladder.reason} ({ladder.decision.value}).")


def format_effect(item: Effect) -> str:
    """Return a difference with its interval, and the level of the interval if that is not 95 %."""
    if item.low is None or item.high is None:
        return format_signed(item.mean)
    level = "" if item.level == 0.95 else f" ({100 * item.level:.3g} %)"
    return f"{format_signed(item.mean)} [{format_signed(item.low)}, {format_signed(item.high)}]{level}"


def format_amounts(item: Effect) -> str:
    """Return a difference of any size with its interval, in three significant digits."""
    mean, low, high = (format_number(value) for value in (item.mean, item.low, item.high))
    return mean if item.low is None else f"{mean} [{low}, {high}]"


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


def power_lines(comparison: Comparison) -> list[str]:
    """Return one sentence a scale: the noise of its pairs, and the effect that the design can detect."""
    return [plain_text(_power_line(row, comparison.loss_unit)) for row in comparison.power]


def _power_line(row: ObservedPower, loss_unit: str) -> str:
    unit, chance = loss_unit.partition(" a ")[0], f"{row.chance:.0%}"
    source = "assumed" if row.assumed else "A/A library"
    noise = f"{row.observed_sd:.4f} {unit} (SD, {row.df} df; {source} {row.planned_sd:.4f})"
    line = f"{row.scale}: the difference of a pair varies over seeds by {noise}. {row.seeds} seeds detect "
    if row.observed_effect <= row.planned_effect:
        return (
            f"{line}{row.observed_effect:.4f} {unit} with {chance} power; announced {row.planned_effect:.4f}."
        )
    need = f"{row.seeds_needed} seeds" if row.seeds_needed else f"more than {MAX_SEEDS} seeds"
    return (
        f"{line}{row.observed_effect:.4f} {unit} with {chance} power; the announced {row.planned_effect:.4f} "
        f"would take {need}."
    )


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


def largest_scale_line(comparison: Comparison, ladder: Ladder) -> str:
    """Return k of the largest scale per token, per FLOP and per second, with the number of pairs and p."""
    answer = ladder.largest_scale
    if answer is None:
        return "No scale has a result yet."
    p = f", {format_p_statement(answer.p_holm)} after Holm's correction" if answer.p_holm is not None else ""
    start = f"At {answer.scale} ({answer.delta.n} pairs{p}): "
    if answer.k is None or answer.k.k is None:
        return f"{start}loss difference {format_effect(answer.delta)}, no multiplier."
    costs = {PER_UNIT[answer.k.estimand]: answer.k} | cost_multipliers(ladder)
    s = costs.pop(PER[Axis.seconds], None)
    numbers = ", ".join(f"{format_multiplier(k)} {cost}" for cost, k in costs.items())
    return f"{start}k = {numbers}{_speed_up_text(comparison, answer, s)}."


def _speed_up_text(comparison: Comparison, answer: LargestScale, s: Multiplier | None) -> str:
    """Return s with the step time that it rests on, or that the variants were not timed."""
    if s is None or answer.step_time is None:
        hint = " (gate=promote times each variant alone)" if comparison.rule.hash else ""
        return f"; not timed per second{hint}"
    ratio = answer.step_time
    if ratio.se is None:
        return f"; s = {format_multiplier(s)} per second (step time {ratio.ratio:.3f} times, no interval)"
    times = format_multiplier_interval(ratio.ratio, math.exp(ratio.low), math.exp(ratio.high))
    return f"; s = {format_multiplier(s)} per second (step time {times} times, {ratio.quads} quads)"


def bet_lines(ladder: Ladder) -> list[str]:
    """Return what a larger run should take, the drift that this assumes, and what would settle it."""
    bet = ladder.bet
    if bet is None:
        return []
    correction = (
        "" if bet.estimate.seen_df < 0.1 else f", corrected by the {bet.estimate.seen_df:.2g} df seen here"
    )
    sd = math.sqrt(bet.estimate.drift_variance)
    drift = (
        f"From {ladder.scales[-1]} to there ln k may move by {sd:.3f} "
        f"(SD; declared {bet.drift.sd:g} per root e-fold of compute{correction})."
    )
    settle = f"What would settle the bet: {bet.settle}." if bet.settle else ""
    return [plain_text(line) for line in (bet_sentence(ladder), drift, settle) if line]


def pooled_line(ladder: Ladder) -> str:
    """Return k over all scales, or that they have none in common; '' for one scale."""
    if len(ladder.scales) < 2:
        return ""
    if "HETEROGENEOUS" in ladder.flags:
        p = format_p_statement(ladder.heterogeneity_p)
        return f"The scales have no k in common (HETEROGENEOUS, {p}), so no pooled k is given."
    scales = f"{len(ladder.scales)} scales"
    if ladder.k is None or ladder.k.k is None:
        return f"Over {scales}: no multiplier."
    cost = PER_UNIT[ladder.k.estimand]
    return f"Pooled over {scales} ({ladder.k.n} pairs): k = {format_multiplier(ladder.k)} {cost}."


def ladder_lines(ladder: Ladder) -> list[str]:
    """Return one sentence each on equivalence at the largest scale, and on pooled k, trend and line over all
    scales, which describe and decide nothing."""
    lines = [across_scales_line(ladder) or pooled_line(ladder)]
    if ladder.k_compute and ladder.k_compute.k is not None:
        lines.append(f"Along the ladder, in compute: k = {format_multiplier(ladder.k_compute)}.")
    if trend := ladder.trend:
        lines.append(_trend_text(trend))
    if ladder.projection:
        lines.append(_projection_text(ladder.projection))
    test = ladder.largest_scale.equivalence if ladder.largest_scale else None
    if test and test.p is not None and (test.passed or ladder.decision is Decision.INCONCLUSIVE):
        outcome = "passes" if test.passed else "does not pass"
        p = format_p_statement(test.p)
        lines.append(
            f"Equivalence within ±{format_number(test.margin, 2)} in {test.unit.value} {outcome} ({p})."
        )
    return [line for line in lines if line]


def across_scales_line(ladder: Ladder) -> str:
    """Return the mean over scales of one seed each, with its estimand; '' if the ladder has none."""
    sample = ladder.across_scales
    if sample is None:
        return ""
    cost = (
        f" {PER_UNIT[ladder.largest_scale.k.estimand]}"
        if ladder.largest_scale and ladder.largest_scale.k
        else ""
    )
    k, p = format_multiplier_interval(sample.k, sample.low, sample.high), format_p_statement(sample.sign_p)
    hot = "DECAY_UNVERIFIED" in ladder.flags
    return (
        f"Over {sample.scales} scales of one seed each: k = {k}{cost}, above 1 at {sample.positive} of them "
        f"(sign test {p}). Estimand: {sample.estimand}. It says nothing about other seeds and decides nothing"
        f"{', and holds only if the learning rate had decayed at all ends' if hot else ''}."
    )


def _trend_text(trend: Trend) -> str:
    """Return how the difference changes with scale, and the slope of ln k itself: above zero, k rises."""
    sign = math.copysign(1.0, trend.slope * trend.gamma)
    low, high = sorted((sign * trend.low, sign * trend.high))
    return (
        f"{DIRECTION_TEXT[trend.direction]} ({trend.direction.value}; ln k moves by {trend.slope:+.3f} "
        f"[{low:+.3f}, {high:+.3f}] per e-fold of compute, {trend.scales} scales)."
    )


def _projection_text(projection: Projection) -> str:
    k = format_multiplier_interval(projection.k, projection.low, projection.high)
    text = f"The line through the scales is at k = {k} at {format_scientific(projection.flops)} FLOPs"
    if projection.crossing_flops:
        text += f" and crosses 1 at {format_scientific(projection.crossing_flops)}"
    return f"{text} (EXTRAPOLATION; it decides nothing)."
