"""Loss difference of a pair at equal steps, tokens, FLOPs or device-seconds.

Only decayed checkpoints count. Between a run's cooldown branch and its end the loss is interpolated linearly
in the logarithm of the amount. There is no extrapolation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from harness.compare.inputs.pairing import PairedRuns
from harness.compare.inputs.run_records import RunRecord
from harness.compare.results.verdict_types import IsoRow
from harness.compare.stats.paired_effects import effect_from_deltas
from harness.records.run.training_target import END

AXES = ("steps", "tokens", "flops")
WALL_CLOCK = "device_seconds"


def iso_rows(pairing: PairedRuns, axes: Sequence[str] = AXES, level: float = 0.95) -> tuple[IsoRow, ...]:
    """Return one row per axis: the difference at the smaller of the two runs' final amounts.

    An axis without a loss for every pair has no row. Device-seconds are wall-clock numbers: callers ask for
    them by name and put them under `times`.
    """
    if pairing.look != END or not pairing.paired or not pairing.pairs:
        return ()
    return tuple(row for axis in axes if (row := _iso_row(pairing, axis, level)))


def _iso_row(pairing: PairedRuns, axis: str, level: float) -> IsoRow | None:
    curves = [
        (_decayed_points(pairing, m.control, axis), _decayed_points(pairing, m.treatment, axis))
        for m in pairing.pairs
    ]
    if any(not a or not b for a, b in curves):
        return None
    amounts = [min(a[-1][0], b[-1][0]) for a, b in curves]
    deltas = [_loss_at(b, x) - _loss_at(a, x) for (a, b), x in zip(curves, amounts, strict=True)]
    if not np.isfinite(deltas).all():
        return None
    loss_size = float(np.abs(pairing.control_losses).max())
    effect = effect_from_deltas(deltas, loss_size=loss_size, level=level)
    return IsoRow(axis, float(np.mean(amounts)), effect)


def _loss_at(curve: Sequence[tuple[float, float]], amount: float) -> float:
    """Return the loss at an amount, up to the curve's end; NaN below the first decayed point."""
    amounts, losses = zip(*curve, strict=True)
    return float(np.interp(math.log(amount), np.log(amounts), losses, left=math.nan))


def _decayed_points(pairing: PairedRuns, run: RunRecord, axis: str) -> list[tuple[float, float]]:
    """Return (amount, loss) of the run's decayed checkpoints, sorted by amount."""
    outcomes = [pairing.result_at(run, share) for share in sorted(run.branches)] + [pairing.result_at(run)]
    usable = [outcome for outcome in outcomes if outcome and outcome.decayed]
    field = "step" if axis == "steps" else axis
    points = [(float(getattr(outcome, field)), outcome.loss) for outcome in usable]
    return sorted(point for point in points if point[0] > 0)
