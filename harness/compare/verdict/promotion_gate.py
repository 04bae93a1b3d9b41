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

from harness.compare.inputs.loss_spikes import has_spike
from harness.compare.inputs.run_records import RunRecord
from harness.compare.results.verdict_types import Criterion, Decision, GateResult, Ladder
from harness.compare.verdict.per_scale import DraftRung
from harness.compare.verdict.run_outcomes import diverged_paths, ended_runs

DEFAULT_MARGINS = {"quality": 0.01, "speed": 0.05, "memory": 0.05, "stability": 0.05}
"""How much of each may be lost, where the experiment does not say."""
MIN_WON = 3


@dataclass(frozen=True)
class GateMeasurements:
    """What is known of one variant beside its losses. Absent is None."""

    step_seconds: float | None
    """From a timing pass of its own, never from runs that shared a host."""
    peak_bytes: float | None
    flops_per_token: float | None
    """At the scale that was timed."""
    num_failed: int
    """Runs that diverged or spiked, of those `judged`."""
    num_judged: int
    """Runs that came to an end and whose steps can be read, or that diverged."""


def gate_measurements(
    drafts: Sequence[DraftRung], timing: Mapping[str, Any], spikes: dict[str, bool | None]
) -> tuple[GateMeasurements, GateMeasurements]:
    """Control and treatment. timing: `{"scale": s, "variants": {variant: {"step_seconds": s, "peak_bytes":
    b}}}`; spikes: by path of a run whether it spiked, filled here with what is not known yet."""
    diverged = diverged_paths(drafts)
    sides = zip((drafts[0].pairing.control, drafts[0].pairing.variant), ended_runs(drafts), strict=True)
    control, treatment = (_variant_measurements(name, runs, diverged, timing, spikes) for name, runs in sides)
    return control, treatment


def evaluate_gate(
    ladder: Ladder,
    control: GateMeasurements,
    candidate: GateMeasurements,
    margins: Mapping[str, float] | None = None,
) -> GateResult:
    """The gate of one treatment. What is not measured is neither won nor forgiven."""
    limits = DEFAULT_MARGINS | dict(margins or {})
    criteria = (
        _quality_criterion(ladder, limits["quality"]),
        _speed_criterion(control, candidate, limits["speed"]),
        _memory_criterion(control, candidate, limits["memory"]),
        _stability_criterion(ladder, control, candidate, limits["stability"]),
    )
    return decide_gate(ladder.variant, criteria, invalid=ladder.decision is Decision.INVALID)


def decide_gate(variant: str, criteria: Sequence[Criterion], *, invalid: bool = False) -> GateResult:
    """Promote if three of four are won and the other is lost by no more than its margin."""
    won = sum(criterion.passed is True for criterion in criteria)
    not_won = [c for c in criteria if c.passed is not True]
    unmeasured_names = [c.name for c in not_won if c.passed is None]
    beyond_margin = [c.name for c in not_won if c.value is not None and c.value < -c.margin]
    if invalid:
        return GateResult(variant, False, won, tuple(criteria), "the comparison itself is invalid")
    if unmeasured_names:
        return GateResult(
            variant, False, won, tuple(criteria), f"not measured: {', '.join(unmeasured_names)}"
        )
    if won < MIN_WON:
        names = ", ".join(c.name for c in not_won)
        return GateResult(variant, False, won, tuple(criteria), f"won {won} of {len(criteria)}, not: {names}")
    if beyond_margin:
        return GateResult(
            variant, False, won, tuple(criteria), f"lost by over its margin: {', '.join(beyond_margin)}"
        )
    return GateResult(variant, True, won, tuple(criteria), f"won {won} of {len(criteria)}")


def _variant_measurements(
    name: str,
    runs: Sequence[RunRecord],
    diverged: set[str],
    timing: Mapping[str, Any],
    spikes: dict[str, bool | None],
) -> GateMeasurements:
    variants = timing.get("variants")
    timed = variants.get(name) if isinstance(variants, dict) else None
    timed = timed if isinstance(timed, dict) else {}
    for run in runs:
        if run.path not in diverged and run.path not in spikes:
            spikes[run.path] = has_spike(run)
    outcomes = [True if run.path in diverged else spikes[run.path] for run in runs]
    judged_runs = [outcome for outcome in outcomes if outcome is not None]
    flops = [
        run.provenance.facts.flops_per_token for run in runs if run.provenance.scale == timing.get("scale")
    ]
    return GateMeasurements(
        _positive_or_none(timed.get("step_seconds")), _positive_or_none(timed.get("peak_bytes")),
        _positive_or_none(flops[0]) if flops else None, sum(judged_runs), len(judged_runs),
    )  # fmt: skip


def _quality_criterion(ladder: Ladder, margin: float) -> Criterion:
    """Won by a verdict in its favour; its value is the lower end of the Holm-adjusted interval of ln k, so
    that a wide interval is not mistaken for a small loss."""
    low = ladder.holm_low
    passed = None if low is None else ladder.decision is Decision.B_BETTER
    if low is None:
        return Criterion("quality", None, None, margin, "there is no interval of ln k")
    pairs = f", {ladder.k.n} pairs" if ladder.k else ""
    detail = f"lower end of the Holm-adjusted interval of ln k{pairs}; verdict {ladder.decision.value}"
    return Criterion("quality", passed, low, margin, detail)


def _speed_criterion(control: GateMeasurements, candidate: GateMeasurements, margin: float) -> Criterion:
    """Step time and FLOPs a token: won if neither is worse, and worth what the worse of the two is."""
    times = _log_advantage(control.step_seconds, candidate.step_seconds)
    flops = _log_advantage(control.flops_per_token, candidate.flops_per_token)
    if times is None or flops is None:
        missing = "step time" if times is None else "FLOPs a token at the timed scale"
        return Criterion("speed", None, None, margin, f"{missing} of both variants was not measured")
    detail = (
        f"step time {candidate.step_seconds:.4g} s against {control.step_seconds:.4g} s, "
        f"FLOPs a token {candidate.flops_per_token:.4g} against {control.flops_per_token:.4g}"
    )
    value = min(times, flops)
    return Criterion("speed", value >= 0, value, margin, detail)


def _memory_criterion(control: GateMeasurements, candidate: GateMeasurements, margin: float) -> Criterion:
    value = _log_advantage(control.peak_bytes, candidate.peak_bytes)
    if value is None:
        return Criterion("memory", None, None, margin, "peak memory of both variants was not measured")
    detail = f"peak bytes a device {candidate.peak_bytes:.4g} against {control.peak_bytes:.4g}"
    return Criterion("memory", value >= 0, value, margin, detail)


def _stability_criterion(
    ladder: Ladder, control: GateMeasurements, candidate: GateMeasurements, margin: float
) -> Criterion:
    if not control.num_judged or not candidate.num_judged:
        return Criterion("stability", None, None, margin, "there are no step losses of both variants")
    a, b = control.num_failed / control.num_judged, candidate.num_failed / candidate.num_judged
    detail = (
        f"{candidate.num_failed} of {candidate.num_judged} runs diverged or spiked, "
        f"against {control.num_failed} of {control.num_judged} of {ladder.control}"
    )
    return Criterion("stability", b <= a, a - b, margin, detail)


def _log_advantage(control: float | None, candidate: float | None) -> float | None:
    """ln of the control's over the candidate's: positive where the candidate needs less."""
    return None if control is None or candidate is None else math.log(control / candidate)


def _positive_or_none(value: Any) -> float | None:
    usable = (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
    )
    return float(value) if usable else None
