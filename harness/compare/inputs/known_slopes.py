"""Slopes of the control that do not come from its own runs: given by hand, or from runs of another length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.compare.inputs.evaluations import last_result
from harness.compare.inputs.run_records import RunRecord
from harness.compare.stats.control_slope import ControlSlope, given_slope, length_slope
from harness.core.errors import UserError, did_you_mean

MIN_DISTANCE = 0.01
"""Relative difference of tokens below which two lengths show no slope."""


@dataclass(frozen=True)
class KnownSlopes:
    """Slopes of the control by scale, the runs that are compared, and notes on the slopes."""

    slopes: Mapping[str, ControlSlope]
    compared_runs: Sequence[RunRecord]
    notes: tuple[str, ...] = ()


def known_slopes(
    runs: Sequence[RunRecord], control: str, slope: float | None, horizon: str | None
) -> KnownSlopes:
    """Return the slopes that a user gives: `slope` nats an e-fold of tokens at every scale, or those from the
    ends of the control to those of `horizon`, which is the control and no treatment. Raises UserError for a
    slope or a horizon that means nothing."""
    if slope is not None and not slope > 0:
        raise UserError(f"slope={slope:g}: give the fall of the control's loss an e-fold of tokens, above 0")
    if slope is not None and horizon is not None:
        raise UserError(f"horizon={horizon}: slope={slope:g} gives the slope already. Give one of them.")
    if slope is not None:
        return KnownSlopes({run.provenance.scale: given_slope(slope) for run in runs}, runs)
    if horizon is None:
        return KnownSlopes({}, runs)
    treatments = sorted({run.provenance.variant for run in runs} - {control})
    if horizon not in treatments:
        raise UserError(f"horizon={horizon}: no such treatment; {did_you_mean(horizon, treatments)}")
    note = f"the slope of '{control}' is that from its ends to the ends of '{horizon}', which is no treatment"
    compared_runs = [run for run in runs if run.provenance.variant != horizon]
    return KnownSlopes(_slopes_to_horizon(runs, control, horizon), compared_runs, (note,))


def _slopes_to_horizon(runs: Sequence[RunRecord], control: str, horizon: str) -> dict[str, ControlSlope]:
    """Return the slope by scale from the ends of the control to those of `horizon`. Raises UserError if no
    scale has both at different numbers of tokens."""
    scales = {run.provenance.scale for run in runs if run.provenance.variant == horizon}
    slopes = {scale: _slope_at(runs, scale, control, horizon) for scale in sorted(scales)}
    slopes = {scale: slope for scale, slope in slopes.items() if slope}
    if not slopes:
        raise UserError(
            f"horizon={horizon}: no scale has decayed ends of '{control}' and of it at different numbers of "
            "tokens. Name the variant that is the control trained longer or shorter."
        )
    return slopes


def _slope_at(runs: Sequence[RunRecord], scale: str, control: str, horizon: str) -> ControlSlope | None:
    ends = {}
    for name in (control, horizon):
        own_runs = [run for run in runs if (run.provenance.scale, run.provenance.variant) == (scale, name)]
        results = [result for run in own_runs if (result := last_result(run.evals, ()))]
        decayed = [result for result in results if result.decayed and np.isfinite(result.loss)]
        ends[name] = np.array([(result.tokens, result.loss) for result in decayed])
    if not all(len(values) for values in ends.values()):
        return None
    (tokens, losses), (other_tokens, other_losses) = ends[control].T, ends[horizon].T
    ratio = float(other_tokens.mean() / tokens.mean())
    return length_slope(losses, other_losses, ratio) if abs(ratio - 1) > MIN_DISTANCE else None
