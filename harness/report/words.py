"""How numbers are written, and what flags and decisions mean, in words a hurried reader can use."""

from __future__ import annotations

import math
from typing import Any

from harness.compare.results import (
    Decision,
    Direction,
    Effect,
    Estimand,
    Ladder,
    Multiplier,
    Projection,
    Slope,
)

NONE = "–"

BLOCKING = {
    "DATA_ORDER_MISMATCH": "the runs did not read the same examples in the same order, so they are not pairs",
    "MIXED_CODE": "two variants of a block were trained under different code",
    "UNEQUAL_TOKENS": "the variants were trained on different numbers of tokens",
    "SCHEDULE_MISMATCH": "the learning-rate schedules differ in shape or horizon",
    "HOT_LR_LOOK": "the losses were read under a hot learning rate, where differences may flip sign",
    "DIVERGED": "a run diverged: an outcome, and no loss to compare",
    "NO_SEED_REPLICATION": "one seed: nothing can be said about other seeds",
    "SLOPE_OUT_OF_RANGE": "the difference is too large for the control's local slope, so k is no estimate",
    "EVAL_SET_MISMATCH": "the runs were evaluated on different held-out tokens",
}
"""Any of these makes a verdict INVALID."""

WARNINGS = {
    "UNEQUAL_FLOPS": "FLOPs a token differ by more than 1 %; k is also shown per FLOP",
    "UNEQUAL_PARAMS": "parameters differ by more than 1 %",
    "LR_GRID_EDGE": "the best learning rate lay at the edge of its bracket: it may not be the best",
    "UNEQUAL_TUNING": "the variants were not tuned with equal effort",
    "LOW_DF": "few degrees of freedom, so the interval is wide",
    "NEGATIVE_CORRELATION": "pairs vary more than unpaired runs would: pairing costs power here",
    "CORRELATION_IMPLAUSIBLE": "the two variants agree too well: perhaps the same run twice",
    "SEED_REUSED_FOR_TUNING": "a seed that chose the learning rate also serves the test",
    "SCHEDULE_FLIP": "the difference changes its sign when the learning rate decays",
    "OUTLIER_SEED": "one seed lies far from the others; the effect is also shown without it",
    "MIXED_HARDWARE": "the runs of a block were trained on different hardware",
    "SHARED_HOST": "times were taken beside other runs and enter no gate",
    "POOR_FIT": "the fitted curve misses its points by more than their noise",
    "EXTRAPOLATION": "reaches beyond the scales that were trained",
    "SLOPE_LOCAL": "k rests on the control's slope between a cooldown branch and the full run, at one size",
    "VARIANCE_MISMATCH": "pairs vary more than A/A pairs do, so no variance was borrowed from those",
}

DECISIONS = {
    Decision.B_BETTER: "treatment better",
    Decision.A_BETTER: "control better",
    Decision.EQUIVALENT: "practically equal",
    Decision.INCONCLUSIVE: "inconclusive",
    Decision.INVALID: "invalid",
}

DIRECTIONS = {
    Direction.SHRINKS: "the advantage shrinks with scale",
    Direction.GROWS: "the advantage grows with scale",
    Direction.HOLDS: "the advantage holds with scale",
    Direction.UNRESOLVED: "how the advantage changes with scale is unresolved",
}

AXIS = {Slope.k_tokens: "tokens", Slope.k_compute: "compute"}
"""What k multiplies."""


def meaning(flag: str) -> str:
    return BLOCKING.get(flag) or WARNINGS.get(flag) or "see the documentation of the comparison"


def plain_text(value: Any) -> str:
    """Text of a config on one line: control characters (terminal escapes among them) become '?'."""
    text = " ".join(str(value).split())
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def number(value: float | None, digits: int = 3) -> str:
    """So many significant digits, without an exponent between .001 and a million."""
    if value is None or not math.isfinite(value):
        return NONE
    if value and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    size = math.floor(math.log10(abs(value))) if value else 0
    return f"{value:.{max(0, digits - 1 - size)}f}"


def count(value: float | None) -> str:
    """1234567 as 1.23M."""
    if value is None or not math.isfinite(value):
        return NONE
    for limit, unit in ((1e15, ""), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if unit and abs(value) >= limit and abs(value) < 1e15:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def loss(value: float | None) -> str:
    return NONE if value is None or not math.isfinite(value) else f"{value:.4f}"


def signed(value: float | None) -> str:
    return NONE if value is None or not math.isfinite(value) else f"{value:+.4f}"


def chance(value: float | None) -> str:
    """A p-value."""
    if value is None:
        return NONE
    return "<.001" if value < 0.001 else f"{value:.3f}".lstrip("0") if value < 1 else "1"


def ratio(value: float | None) -> str:
    """Against the control, in per cent of it; the control itself has none."""
    return "" if value is None else "equal" if value == 1 else f"{100 * (value - 1):+.2g} %"


def effect(item: Effect) -> str:
    """A difference with its interval; without one, that it speaks of these runs only."""
    if item.low is None or item.high is None:
        return signed(item.mean)
    return f"{signed(item.mean)} [{signed(item.low)}, {signed(item.high)}]"


def multiplier(item: Multiplier | None) -> str:
    if item is None or item.k is None:
        return NONE
    if item.low is None or item.high is None:
        return number(item.k)
    return span(item.k, item.low, item.high)


def span(middle: float, low: float, high: float) -> str:
    """A multiplier with its ends, all three with as many decimals as the interval is narrow."""
    width = high - low
    decimals = 2 if not 0 < width < math.inf else min(5, max(1, 1 - math.floor(math.log10(width))))
    return f"{middle:.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]"


def method(name: str, df: float | None) -> str:
    return f"{name} ({number(df, 2)})" if df is not None else name


def estimand(item: Effect) -> str:
    """What an interval is about, for labels."""
    if item.estimand is Estimand.trajectory_only or item.n < 2:
        return f"these trajectories only, n = {item.n}"
    return f"population of seeds, n = {item.n}"


def ladder_lines(ladder: Ladder) -> list[str]:
    """What is known over all scales: pooled k, trend, projection, equivalence, one sentence each."""
    lines = [_pooled(ladder)]
    if trend := ladder.trend:
        gamma = f"{trend.gamma:+.3f} [{trend.low:+.3f}, {trend.high:+.3f}]"
        lines.append(
            f"{trend.direction.value}: {DIRECTIONS[trend.direction]} "
            f"(ln k changes by {gamma} per e-fold of compute, {trend.scales} scales)."
        )
    if projection := ladder.projection:
        lines.append(_projected(projection))
    if (test := ladder.equivalence) and test.p is not None:
        verdict = "passes" if test.passed else "does not pass"
        lines.append(
            f"Equivalence within ±{number(test.margin, 2)} in ln k {verdict} (p = {chance(test.p)})."
        )
    return lines


def _pooled(ladder: Ladder) -> str:
    if ladder.k is None or ladder.k.k is None:
        return f"No multiplier over {len(ladder.scales)} scales could be taken."
    p = f", p = {chance(ladder.p_holm)} (Holm)" if ladder.p_holm is not None else ""
    return (
        f"Over {len(ladder.scales)} scales: k = {multiplier(ladder.k)} "
        f"in {AXIS[ladder.k.estimand]} ({ladder.k.estimand.value}, n = {ladder.k.n}{p})."
    )


def _projected(projection: Projection) -> str:
    text = (
        f"At {count(projection.flops)} FLOPs: k = {span(projection.k, projection.low, projection.high)} "
        "(prediction interval, EXTRAPOLATION)"
    )
    if projection.crossing_flops:
        text += f"; the line crosses k = 1 at {count(projection.crossing_flops)} FLOPs"
    return text + "."
