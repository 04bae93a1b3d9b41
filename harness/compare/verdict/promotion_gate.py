"""Promotion gate with four criteria. A candidate must win three and lose the fourth by at most its margin.

Each criterion is an advantage, positive if the candidate is better: ln k; minus ln of the ratio of step
times, at the worse end of its interval, or of FLOPs per token if that is worse; minus ln of the ratio of peak
memory; and the control's rate of diverged or spiked runs minus the candidate's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from harness.compare.inputs.json_values import dict_or_empty, number_or_none
from harness.compare.inputs.run_records import RunRecord
from harness.compare.inputs.step_timing import read_step_timing
from harness.compare.results.verdict_types import Criterion, Decision, GateResult, Ladder
from harness.compare.stats.speed_up import TimingRatio
from harness.compare.verdict.per_scale import DraftRung
from harness.compare.verdict.run_outcomes import diverged_paths, ended_runs
from harness.records.run.metrics import read_curve

DEFAULT_MARGINS = {"quality": 0.01, "speed": 0.05, "memory": 0.05, "stability": 0.05}
"""Largest loss allowed in each criterion, unless the experiment sets another."""
MIN_WON = 3
SpikeCache = dict[str, bool | None]
"""True by run path if the run spiked; None if it has no step table."""
LEVEL_STEPS, NOISE_STEPS, MIN_STEPS = 32, 128, 16
"""Windows of preceding steps for the level and the noise of a spike, and the fewest steps that are enough."""


LIMIT_SDS = 7.0
"""Standard deviations above the level that count as high."""


@dataclass(frozen=True)
class GateMeasurements:
    """Measurements of one variant other than its losses. None if not measured."""

    step_time: TimingRatio | None
    """Step time over the control's, from a separate timing pass, never from runs that shared a host."""
    peak_bytes: float | None
    flops_per_token: float | None
    """Model FLOPs per token at the timed scale."""
    num_failed: int
    """Number of judged runs that diverged or spiked."""
    num_judged: int
    """Number of runs that ended with readable steps, or diverged."""


def gate_measurements(
    drafts: Sequence[DraftRung], timing: Mapping[str, Any], spikes: SpikeCache
) -> tuple[GateMeasurements, GateMeasurements]:
    """Return the measurements of control and treatment; fills `spikes`. timing: content of timing.json."""
    diverged = diverged_paths(drafts)
    pairing = drafts[0].pairing
    sides = zip((pairing.control, pairing.variant), ended_runs(drafts), strict=True)
    control, treatment = (
        _variant_measurements(name, pairing.control, runs, diverged, timing, spikes) for name, runs in sides
    )
    return control, treatment


def evaluate_gate(
    ladder: Ladder,
    control: GateMeasurements,
    candidate: GateMeasurements,
    margins: Mapping[str, float] | None = None,
) -> GateResult:
    """Evaluate the gate of one treatment. A criterion that was not measured blocks promotion."""
    limits = DEFAULT_MARGINS | dict(margins or {})
    criteria = (
        _quality_criterion(ladder, limits["quality"]),
        _speed_criterion(ladder, control, candidate, limits["speed"]),
        _memory_criterion(control, candidate, limits["memory"]),
        _stability_criterion(ladder, control, candidate, limits["stability"]),
    )
    return decide_gate(ladder.variant, criteria, invalid=ladder.decision is Decision.INVALID)


def decide_gate(variant: str, criteria: Sequence[Criterion], *, invalid: bool = False) -> GateResult:
    """Promote if three of four criteria are won and the other is lost by at most its margin."""
    num_won = sum(criterion.passed is True for criterion in criteria)
    not_won = [c for c in criteria if c.passed is not True]
    not_measured = [c.name for c in not_won if c.passed is None]
    beyond_margin = [c.name for c in not_won if c.value is not None and c.value < -c.margin]
    promote, reason = False, f"won {num_won} of {len(criteria)}"
    if invalid:
        reason = "the comparison itself is invalid"
    elif not_measured:
        reason = f"not measured: {', '.join(not_measured)}"
    elif num_won < MIN_WON:
        reason += f", not: {', '.join(c.name for c in not_won)}"
    elif beyond_margin:
        reason = f"lost by over its margin: {', '.join(beyond_margin)}"
    else:
        promote = True
    return GateResult(variant, promote, num_won, tuple(criteria), reason)


def _variant_measurements(
    name: str,
    control: str,
    runs: Sequence[RunRecord],
    diverged: set[str],
    timing: Mapping[str, Any],
    spikes: SpikeCache,
) -> GateMeasurements:
    timed = dict_or_empty(dict_or_empty(timing.get("variants")).get(name))
    ratios = read_step_timing(timing, control).ratios
    for run in runs:
        if run.path not in diverged and run.path not in spikes:
            spikes[run.path] = has_spike(run)
    outcomes = [True if run.path in diverged else spikes[run.path] for run in runs]
    judged_runs = [outcome for outcome in outcomes if outcome is not None]
    records = [run.provenance for run in runs]
    flops = [record.facts.flops_per_token for record in records if record.scale == timing.get("scale")]
    return GateMeasurements(
        ratios.get(name), _positive_or_none(timed.get("peak_bytes")),
        _positive_or_none(flops[0]) if flops else None, sum(judged_runs), len(judged_runs),
    )  # fmt: skip


def _quality_criterion(ladder: Ladder, margin: float) -> Criterion:
    """Return the quality criterion: won if the verdict is B_BETTER. Its value is the lower end of the
    Holm-adjusted interval of ln k, so that a wide interval does not pass as a small loss."""
    largest_scale = ladder.largest_scale
    if largest_scale is None or largest_scale.holm_low is None:
        return Criterion("quality", None, None, margin, "there is no interval of ln k at the largest scale")
    low, decision = largest_scale.holm_low, ladder.decision.value
    place = f"{largest_scale.scale}, {largest_scale.delta.n} pairs"
    detail = f"lower end of the Holm-adjusted interval of ln k at {place}; verdict {decision}"
    return Criterion("quality", ladder.decision is Decision.B_BETTER, low, margin, detail)


def _speed_criterion(
    ladder: Ladder, control: GateMeasurements, candidate: GateMeasurements, margin: float
) -> Criterion:
    """Return the speed criterion from step time and FLOPs per token; its value is the worse of the two. Of
    the step times the worse end of the interval counts, so that a wide one does not pass as a small loss."""
    flops = _log_advantage(control.flops_per_token, candidate.flops_per_token)
    ratio = candidate.step_time
    if ratio is None or flops is None:
        missing = "step time" if ratio is None else "FLOPs per token at the timed scale"
        return Criterion("speed", None, None, margin, f"{missing} of both variants was not measured")
    interval = "" if ratio.se is None else f" [{math.exp(ratio.low):.3f}, {math.exp(ratio.high):.3f}]"
    detail = (
        f"step time {ratio.ratio:.3f}{interval} times the control's, FLOPs per token "
        f"{candidate.flops_per_token:.4g} against {control.flops_per_token:.4g}"
    )
    value = min(-ratio.log_ratio if ratio.se is None else -ratio.high, flops)
    if "NOISY_TIMING" in ladder.flags:
        return Criterion("speed", None, value, margin, f"{detail}; NOISY_TIMING decides nothing")
    return Criterion("speed", value >= 0, value, margin, detail)


def _memory_criterion(control: GateMeasurements, candidate: GateMeasurements, margin: float) -> Criterion:
    value = _log_advantage(control.peak_bytes, candidate.peak_bytes)
    if value is None:
        return Criterion("memory", None, None, margin, "peak memory of both variants was not measured")
    detail = f"peak bytes per device {candidate.peak_bytes:.4g} against {control.peak_bytes:.4g}"
    return Criterion("memory", value >= 0, value, margin, detail)


def _stability_criterion(
    ladder: Ladder, control: GateMeasurements, candidate: GateMeasurements, margin: float
) -> Criterion:
    if not control.num_judged or not candidate.num_judged:
        return Criterion("stability", None, None, margin, "not both variants have step losses")
    a, b = control.num_failed / control.num_judged, candidate.num_failed / candidate.num_judged
    detail = (
        f"{candidate.num_failed} of {candidate.num_judged} runs diverged or spiked, "
        f"against {control.num_failed} of {control.num_judged} of {ladder.control}"
    )
    return Criterion("stability", b <= a, a - b, margin, detail)


def _log_advantage(control: float | None, candidate: float | None) -> float | None:
    """Return ln(control / candidate), positive if the candidate needs less. None if either is None."""
    return None if control is None or candidate is None else math.log(control / candidate)


def _positive_or_none(value: Any) -> float | None:
    number = number_or_none(value)
    return number if number is not None and 0 < number < math.inf else None


def find_spikes(losses: ArrayLike) -> list[int]:
    """Find the positions at which a spike begins. losses: shape (steps,), in order.

    A spike is two consecutive steps that each lie more than LIMIT_SDS standard deviations above the median of
    the LEVEL_STEPS before. Two, because a hard batch raises one step, while a disturbed model needs several
    to recover. The standard deviation is that of the step-to-step noise, 1.4826 / sqrt 2 times the median
    |difference| over NOISE_STEPS, which neither the falling curve nor the spike itself widens. High steps
    within the next LEVEL_STEPS belong to the same spike. A single loss that is not finite is a spike. The
    limit is that of the spike score of OLMo 2 (arXiv:2501.00656: 7 SDs from a rolling mean).
    """
    x = np.asarray(losses, float)
    not_finite, high = ~np.isfinite(x), _above_limit(x)
    is_start = not_finite | (high & np.append(high[1:], False))
    spikes, last = [], -np.inf
    for position in np.flatnonzero(is_start[: x.size]).tolist():
        if position - last > LEVEL_STEPS:
            spikes.append(position)
        last = position
    return spikes


def has_spike(run: RunRecord) -> bool | None:
    """Return True if a run's step table shows a spike; None if there is no table."""
    if run.directory is None:
        return None
    losses = read_curve(run.directory, "steps")["loss"].to_numpy()
    return bool(find_spikes(losses)) if losses.size else None


def _above_limit(x: np.ndarray) -> np.ndarray:
    """Return a mask of the steps above the limit; false for steps with fewer than MIN_STEPS before them."""
    losses = pl.Series(np.where(np.isfinite(x), x, np.nan)).fill_nan(None)
    level = losses.rolling_median(LEVEL_STEPS, min_samples=MIN_STEPS).shift(1)
    difference = losses.diff().abs().rolling_median(NOISE_STEPS, min_samples=MIN_STEPS)
    noise = difference.shift(1) * (1.4826 / 2**0.5)
    return ((noise > 0) & (losses - level > LIMIT_SDS * noise)).fill_null(False).to_numpy()
