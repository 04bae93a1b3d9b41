"""Promotion: four criteria, of which a candidate wins three and loses the fourth by no more than its margin.

Every criterion is an advantage, positive in the candidate's favour: ln k; minus ln of the ratio of step
times, or of FLOPs a token if that is worse; minus ln of the ratio of peak memory; and the control's rate of
diverged or spiked runs minus its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.compare.inputs.loss_spikes import spiked
from harness.compare.inputs.run_records import RunRecord
from harness.compare.results.verdict_types import Criterion, Decision, GateResult, Ladder
from harness.compare.verdict.per_scale import DraftRung
from harness.compare.verdict.run_outcomes import diverged_paths, ended_runs

MARGINS = {"quality": 0.01, "speed": 0.05, "memory": 0.05, "stability": 0.05}
"""How much of each may be lost, where the experiment does not say."""
NEEDED = 3


@dataclass(frozen=True)
class Measured:
    """What is known of one variant beside its losses. Absent is None."""

    step_seconds: float | None
    """From a timing pass of its own, never from runs that shared a host."""
    peak_bytes: float | None
    flops_per_token: float | None
    """At the scale that was timed."""
    failed: int
    """Runs that diverged or spiked, of those `judged`."""
    judged: int
    """Runs that came to an end and whose steps can be read, or that diverged."""


def measure(
    drafts: Sequence[DraftRung], timing: Mapping[str, Any], spikes: dict[str, bool | None]
) -> tuple[Measured, Measured]:
    """Control and treatment. timing: `{"scale": s, "variants": {variant: {"step_seconds": s, "peak_bytes":
    b}}}`; spikes: by path of a run whether it spiked, filled here with what is not known yet."""
    lost = diverged_paths(drafts)
    sides = zip((drafts[0].bout.control, drafts[0].bout.variant), ended_runs(drafts), strict=True)
    one, other = (_measured(name, runs, lost, timing, spikes) for name, runs in sides)
    return one, other


def gate_of(
    ladder: Ladder, one: Measured, other: Measured, margins: Mapping[str, float] | None = None
) -> GateResult:
    """The gate of one treatment. What is not measured is neither won nor forgiven."""
    limits = MARGINS | dict(margins or {})
    criteria = (
        _quality(ladder, limits["quality"]),
        _speed(one, other, limits["speed"]),
        _memory(one, other, limits["memory"]),
        _stability(ladder, one, other, limits["stability"]),
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


def _measured(
    name: str,
    runs: Sequence[RunRecord],
    lost: set[str],
    timing: Mapping[str, Any],
    spikes: dict[str, bool | None],
) -> Measured:
    variants = timing.get("variants")
    timed = variants.get(name) if isinstance(variants, dict) else None
    timed = timed if isinstance(timed, dict) else {}
    for run in runs:
        if run.path not in lost and run.path not in spikes:
            spikes[run.path] = spiked(run)
    outcomes = [True if run.path in lost else spikes[run.path] for run in runs]
    known = [outcome for outcome in outcomes if outcome is not None]
    flops = [
        run.provenance.facts.flops_per_token for run in runs if run.provenance.scale == timing.get("scale")
    ]
    return Measured(
        _positive(timed.get("step_seconds")), _positive(timed.get("peak_bytes")),
        _positive(flops[0]) if flops else None, sum(known), len(known),
    )  # fmt: skip


def _quality(ladder: Ladder, margin: float) -> Criterion:
    """Won by a verdict in its favour; its value is the lower end of the Holm-adjusted interval of ln k, so
    that a wide interval is not mistaken for a small loss."""
    low = ladder.holm_low
    passed = None if low is None else ladder.decision is Decision.B_BETTER
    if low is None:
        return Criterion("quality", None, None, margin, "there is no interval of ln k")
    pairs = f", {ladder.k.n} pairs" if ladder.k else ""
    detail = f"lower end of the Holm-adjusted interval of ln k{pairs}; verdict {ladder.decision.value}"
    return Criterion("quality", passed, low, margin, detail)


def _speed(one: Measured, other: Measured, margin: float) -> Criterion:
    """Step time and FLOPs a token: won if neither is worse, and worth what the worse of the two is."""
    times = _advantage(one.step_seconds, other.step_seconds)
    flops = _advantage(one.flops_per_token, other.flops_per_token)
    if times is None or flops is None:
        missing = "step time" if times is None else "FLOPs a token at the timed scale"
        return Criterion("speed", None, None, margin, f"{missing} of both variants was not measured")
    detail = (
        f"step time {other.step_seconds:.4g} s against {one.step_seconds:.4g} s, "
        f"FLOPs a token {other.flops_per_token:.4g} against {one.flops_per_token:.4g}"
    )
    value = min(times, flops)
    return Criterion("speed", value >= 0, value, margin, detail)


def _memory(one: Measured, other: Measured, margin: float) -> Criterion:
    value = _advantage(one.peak_bytes, other.peak_bytes)
    if value is None:
        return Criterion("memory", None, None, margin, "peak memory of both variants was not measured")
    detail = f"peak bytes a device {other.peak_bytes:.4g} against {one.peak_bytes:.4g}"
    return Criterion("memory", value >= 0, value, margin, detail)


def _stability(ladder: Ladder, one: Measured, other: Measured, margin: float) -> Criterion:
    if not one.judged or not other.judged:
        return Criterion("stability", None, None, margin, "there are no step losses of both variants")
    a, b = one.failed / one.judged, other.failed / other.judged
    detail = (
        f"{other.failed} of {other.judged} runs diverged or spiked, "
        f"against {one.failed} of {one.judged} of {ladder.control}"
    )
    return Criterion("stability", b <= a, a - b, margin, detail)


def _advantage(one: float | None, other: float | None) -> float | None:
    """ln of the control's over the candidate's: positive where the candidate needs less."""
    return None if one is None or other is None else math.log(one / other)


def _positive(value: Any) -> float | None:
    usable = (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
    )
    return float(value) if usable else None
