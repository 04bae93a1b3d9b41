"""The control's slope at each scale, taken from its own runs along one axis."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.compare.inputs.pairing import PairedRuns
from harness.compare.stats.compute_multiplier import ControlSlope, fit_ladder, horizon_slope
from harness.records.run.training_target import END

HALF = 0.5


@dataclass(frozen=True)
class ControlSlopes:
    """By scale: the slope that k is stated in, and the one along the ladder where it can be fitted."""

    primary: dict[str, ControlSlope]
    ladder: dict[str, ControlSlope]


def control_slopes(pairings: Sequence[PairedRuns]) -> ControlSlopes:
    """Along the horizon (k_tokens) where every scale has a cooldown branch; else along the ladder
    (k_compute) where four scales carry its curve; else along the horizon where there is a branch."""
    usable = [pairing for pairing in pairings if pairing.all_control_losses.size]
    horizon = {pairing.scale: slope for pairing in usable if (slope := _branch_slope(pairing))}
    ladder = _ladder_slopes([pairing for pairing in usable if pairing.look == END])
    primary = ladder if ladder and len(horizon) < len(usable) else horizon
    return ControlSlopes(primary, ladder)


def slope_between(pairing: PairedRuns, share: float, look: float) -> ControlSlope | None:
    """Between two decayed checkpoints of the control, over the seeds that have both."""
    pairs = [(pairing.result_at(run, share), pairing.result_at(run, look)) for run in pairing.control_runs]
    outcomes = [(branch, end) for branch, end in pairs if branch and end and branch.decayed and end.decayed]
    outcomes = [(branch, end) for branch, end in outcomes if 0 < branch.tokens < end.tokens]
    ratios = {end.tokens / branch.tokens for branch, end in outcomes}
    if len(ratios) != 1:
        return None
    branch, end = np.array([[one.loss, two.loss] for one, two in outcomes]).T
    return horizon_slope(branch, end, ratios.pop())


def _branch_slope(pairing: PairedRuns) -> ControlSlope | None:
    share = _branch_share(pairing)
    if any(len(run.provenance.facts.mixes) > 1 for run in pairing.control_runs):
        return None  # the branch has not read the later stage: its slope would be the mix's as well
    return None if share is None else slope_between(pairing, share, pairing.look)


def _branch_share(pairing: PairedRuns) -> float | None:
    """Of the branches that most runs have the one nearest to half the tokens; where the scale was stopped
    at a look, the look before."""
    counts = Counter(share for run in pairing.control_runs for share in run.branches if share < pairing.look)
    goal = HALF if pairing.look == END else pairing.look
    return min(counts, key=lambda share: (-counts[share], abs(share - goal)), default=None)


def _ladder_slopes(pairings: Sequence[PairedRuns]) -> dict[str, ControlSlope]:
    """One slope a scale from a curve through the control's means; empty below four scales."""
    flops = [_control_flops(pairing) for pairing in pairings]
    means = [float(pairing.all_control_losses.mean()) for pairing in pairings]
    errors = [_standard_error(pairing.all_control_losses) for pairing in pairings]
    if any(value <= 0 for value in flops) or len(set(flops)) < 4:
        return {}
    have_errors = all(error is not None and error > 0 for error in errors)
    fit = fit_ladder(flops, means, [error or 0.0 for error in errors] if have_errors else None)
    return {pairing.scale: slope for pairing, slope in zip(pairings, fit.slopes, strict=True)} if fit else {}


def _control_flops(pairing: PairedRuns) -> float:
    outcomes = [outcome for outcome in map(pairing.result_at, pairing.control_runs) if outcome]
    return max((outcome.flops for outcome in outcomes), default=0.0)


def _standard_error(losses: np.ndarray) -> float | None:
    return float(losses.std(ddof=1) / math.sqrt(losses.size)) if losses.size > 1 else None
