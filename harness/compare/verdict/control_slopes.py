"""Slope of the control's loss at each scale, from its own runs along one axis."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from harness.compare.inputs.json_values import dict_or_empty
from harness.compare.inputs.pairing import PairedRuns
from harness.compare.inputs.run_records import RunRecord
from harness.compare.stats.control_slope import ControlSlope, fit_ladder, horizon_slope
from harness.records.run.training_target import END


def control_slopes(
    pairings: Sequence[PairedRuns], known_slopes: Mapping[str, ControlSlope]
) -> tuple[dict[str, ControlSlope], dict[str, ControlSlope]]:
    """Return the slopes by scale that k uses, and those along the ladder (empty if it cannot be fitted).

    k uses the first that applies: `known_slopes`, by other means; along tokens (k_tokens) if every
    scale has a cooldown branch; along the ladder (k_compute) if four scales allow a fit; along tokens at the
    scales that have a branch.
    """
    usable = [pairing for pairing in pairings if pairing.all_control_losses.size]
    horizon = {pairing.scale: slope for pairing in usable if (slope := _branch_slope(pairing))}
    ladder = _ladder_slopes([pairing for pairing in usable if pairing.look == END])
    if known_slopes:
        return dict(known_slopes), ladder
    return (ladder if ladder and len(horizon) < len(usable) else horizon), ladder


def slope_between(pairing: PairedRuns, share: float, look: float) -> ControlSlope | None:
    """Return the slope between two decayed checkpoints of the control, over the seeds that have both. None if
    no seed has both, or their token ratios differ."""
    pairs = [(pairing.result_at(run, share), pairing.result_at(run, look)) for run in pairing.control_runs]
    results = [(branch, end) for branch, end in pairs if branch and end and branch.decayed and end.decayed]
    results = [(branch, end) for branch, end in results if 0 < branch.tokens < end.tokens]
    ratios = {end.tokens / branch.tokens for branch, end in results}
    if len(ratios) != 1:
        return None
    branch, end = np.array([[branch.loss, end.loss] for branch, end in results]).T
    return horizon_slope(branch, end, ratios.pop())


def _branch_slope(pairing: PairedRuns) -> ControlSlope | None:
    """Return the slope from the branch nearest to half the tokens among those that most runs have. At a scale
    stopped at a look, it is from the look before. None without branches."""
    counts = Counter(share for run in pairing.control_runs for share in run.branches if share < pairing.look)
    if not counts or any(map(_changes_data, pairing.control_runs)):
        return None
    goal = 0.5 if pairing.look == END else pairing.look
    share = min(counts, key=lambda share: (-counts[share], abs(share - goal)))
    return slope_between(pairing, share, pairing.look)


def _changes_data(run: RunRecord) -> bool:
    """Return whether a branch has not read what comes later, so that its slope would include the change."""
    order = dict_or_empty(run.config.get("data")).get("order")
    return len(run.provenance.facts.mixes) > 1 or order == "length"


def _ladder_slopes(pairings: Sequence[PairedRuns]) -> dict[str, ControlSlope]:
    """Return one slope per scale from a curve through the control's means; empty below four scales."""
    results = [map(pairing.result_at, pairing.control_runs) for pairing in pairings]
    flops = [max((r.flops for r in group if r), default=0.0) for group in results]
    losses = [pairing.all_control_losses for pairing in pairings]
    means = [float(values.mean()) for values in losses]
    errors = [float(v.std(ddof=1) / math.sqrt(v.size)) if v.size > 1 else None for v in losses]
    if any(value <= 0 for value in flops) or len(set(flops)) < 4:
        return {}
    have_errors = all(error is not None and error > 0 for error in errors)
    fit = fit_ladder(flops, means, [error or 0.0 for error in errors] if have_errors else None)
    return {pairing.scale: slope for pairing, slope in zip(pairings, fit.slopes, strict=True)} if fit else {}
