"""Promotion: four criteria, of which a candidate wins three and loses the fourth by no more than its margin.

Every criterion is an advantage, positive in the candidate's favour: ln k, minus ln of the ratio of
step times, minus ln of the ratio of peak memory, and the control's rate of failed runs minus its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from harness.compare.results import Criterion, Decision, DivergenceCount, GateResult, Ladder

MARGINS = {"quality": 0.01, "speed": 0.05, "memory": 0.05, "stability": 0.05}
"""How much of each may be lost, where the experiment does not say."""
NEEDED = 3


def gate_of(
    ladder: Ladder,
    divergence: DivergenceCount,
    timing: Mapping[str, Any],
    margins: Mapping[str, float] | None = None,
) -> GateResult:
    """The gate of one treatment.

    timing: `{variant: {"step_seconds": s, "peak_bytes": b, "spikes": n}}` from a timing pass of its own,
    never from runs that shared a host. What is not measured is neither won nor forgiven.
    """
    limits = MARGINS | dict(margins or {})
    one, other = timing.get(ladder.control) or {}, timing.get(ladder.variant) or {}
    criteria = (
        _quality(ladder, limits["quality"]),
        _ratio("speed", "step_seconds", one, other, limits["speed"]),
        _ratio("memory", "peak_bytes", one, other, limits["memory"]),
        _stability(divergence, one, other, limits["stability"]),
    )
    return decide_gate(ladder.variant, criteria, invalid=ladder.decision is Decision.INVALID)


def decide_gate(variant: str, criteria: Sequence[Criterion], *, invalid: bool = False) -> GateResult:
    """Promote if three of four are won and the other is lost by no more than its margin."""
    won = sum(criterion.passed is True for criterion in criteria)
    lost = [c for c in criteria if c.passed is not True]
    unknown = [c.name for c in lost if c.passed is None]
    beyond = [c.name for c in lost if c.value is not None and c.value < -c.margin]
    if invalid:
        return GateResult(variant, False, won, tuple(criteria), "the comparison itself is invalid")
    if unknown:
        return GateResult(variant, False, won, tuple(criteria), f"not measured: {', '.join(unknown)}")
    if won < NEEDED:
        names = ", ".join(c.name for c in lost)
        return GateResult(variant, False, won, tuple(criteria), f"won {won} of {len(criteria)}, not: {names}")
    if beyond:
        return GateResult(
            variant, False, won, tuple(criteria), f"lost by over its margin: {', '.join(beyond)}"
        )
    return GateResult(variant, True, won, tuple(criteria), f"won {won} of {len(criteria)}")


def _quality(ladder: Ladder, margin: float) -> Criterion:
    """Won if the Holm-adjusted interval of ln k lies above zero; its value is that interval's lower end,
    so a wide interval is not mistaken for a small loss."""
    low = ladder.holm_low
    passed = None if low is None else low > 0
    detail = "ln k, lower end of the Holm-adjusted interval"
    return Criterion("quality", passed, low, margin, detail)


def _ratio(name: str, key: str, one: Mapping[str, Any], other: Mapping[str, Any], margin: float) -> Criterion:
    a, b = _positive(one.get(key)), _positive(other.get(key))
    if a is None or b is None:
        return Criterion(name, None, None, margin, f"{key} was not measured")
    value = -math.log(b / a)
    return Criterion(name, value >= 0, value, margin, f"{key}: {b:g} against {a:g}")


def _stability(
    count: DivergenceCount, one: Mapping[str, Any], other: Mapping[str, Any], margin: float
) -> Criterion:
    """Failures a run: diverged runs plus spikes that the timing pass or the runs counted."""
    if not count.runs or not count.control_runs:
        return Criterion("stability", None, None, margin, "no finished runs")
    a = (count.control_diverged + (_positive(one.get("spikes")) or 0)) / count.control_runs
    b = (count.diverged + (_positive(other.get("spikes")) or 0)) / count.runs
    detail = f"diverged or spiked, a run: {b:g} against {a:g}"
    return Criterion("stability", b <= a, a - b, margin, detail)


def _positive(value: Any) -> float | None:
    usable = (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
    )
    return float(value) if usable else None
