"""The control's slope at each scale, taken from its own runs along one axis."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.compare.inputs.pairing import Bout
from harness.compare.stats.compute_multiplier import ControlSlope, fit_ladder, horizon_slope
from harness.records.run.training_target import END

HALF = 0.5


@dataclass(frozen=True)
class Slopes:
    """By scale: the slope that k is stated in, and the one along the ladder where it can be fitted."""

    primary: dict[str, ControlSlope]
    ladder: dict[str, ControlSlope]


def control_slopes(bouts: Sequence[Bout]) -> Slopes:
    """Along the horizon (k_tokens) where every scale has a cooldown branch; else along the ladder
    (k_compute) where four scales carry its curve; else along the horizon where there is a branch."""
    judged = [bout for bout in bouts if bout.a_all.size]
    horizon = {bout.scale: slope for bout in judged if (slope := _horizon(bout))}
    ladder = _ladder([bout for bout in judged if bout.look == END])
    primary = ladder if ladder and len(horizon) < len(judged) else horizon
    return Slopes(primary, ladder)


def slope_between(bout: Bout, share: float, look: float) -> ControlSlope | None:
    """Between two decayed checkpoints of the control, over the seeds that have both."""
    pairs = [(bout.outcome(run, share), bout.outcome(run, look)) for run in bout.a_runs]
    both = [(branch, end) for branch, end in pairs if branch and end and branch.decayed and end.decayed]
    both = [(branch, end) for branch, end in both if 0 < branch.tokens < end.tokens]
    ratios = {end.tokens / branch.tokens for branch, end in both}
    if len(ratios) != 1:
        return None
    branch, end = np.array([[one.loss, two.loss] for one, two in both]).T
    return horizon_slope(branch, end, ratios.pop())


def _horizon(bout: Bout) -> ControlSlope | None:
    share = _share(bout)
    if any(len(run.provenance.facts.mixes) > 1 for run in bout.a_runs):
        return None  # the branch has not read the later stage: its slope would be the mix's as well
    return None if share is None else slope_between(bout, share, bout.look)


def _share(bout: Bout) -> float | None:
    """Of the branches that most runs have the one nearest to half the tokens; where the scale was stopped
    at a look, the look before."""
    counts = Counter(share for run in bout.a_runs for share in run.branches if share < bout.look)
    goal = HALF if bout.look == END else bout.look
    return min(counts, key=lambda share: (-counts[share], abs(share - goal)), default=None)


def _ladder(bouts: Sequence[Bout]) -> dict[str, ControlSlope]:
    """One slope a scale from a curve through the control's means; empty below four scales."""
    flops = [_flops(bout) for bout in bouts]
    means = [float(bout.a_all.mean()) for bout in bouts]
    errors = [_error(bout.a_all) for bout in bouts]
    if any(value <= 0 for value in flops) or len(set(flops)) < 4:
        return {}
    known = all(error is not None and error > 0 for error in errors)
    fit = fit_ladder(flops, means, [error or 0.0 for error in errors] if known else None)
    return {bout.scale: slope for bout, slope in zip(bouts, fit.slopes, strict=True)} if fit else {}


def _flops(bout: Bout) -> float:
    outcomes = [outcome for outcome in map(bout.outcome, bout.a_runs) if outcome]
    return max((outcome.flops for outcome in outcomes), default=0.0)


def _error(losses: np.ndarray) -> float | None:
    return float(losses.std(ddof=1) / math.sqrt(losses.size)) if losses.size > 1 else None
