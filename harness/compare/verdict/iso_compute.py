"""The same pair at equal amounts of steps, tokens, FLOPs and device-seconds.

Only decayed points count. At an amount that one of the runs has not got a checkpoint for, its loss
is read between its cooldown branch and its end, on a straight line in the logarithm; beyond
them nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from harness.compare.inputs.pairing import Bout
from harness.compare.inputs.run_records import Outcome, RunRecord
from harness.compare.results.verdict_types import IsoRow
from harness.compare.stats.estimates import Effect
from harness.compare.stats.paired_effects import effect_of, single_pair
from harness.records.run.training_target import END

AXES = ("steps", "tokens", "flops")
WALL_CLOCK = "device_seconds"
_FIELD = {"steps": "step", "tokens": "tokens", "flops": "flops", WALL_CLOCK: "device_seconds"}


def iso_rows(bout: Bout, axes: Sequence[str] = AXES, level: float = 0.95) -> tuple[IsoRow, ...]:
    """One row an axis: the difference at what the smaller of the two runs had at its end.

    An axis on which some pair cannot be read leaves its row out. Device-seconds are wall-clock: they
    are asked for by name and stand under `times`.
    """
    if bout.look != END or not bout.paired or not bout.matches:
        return ()
    return tuple(row for axis in axes if (row := _row(bout, axis, level)))


def _row(bout: Bout, axis: str, level: float) -> IsoRow | None:
    curves = [(_decayed(bout, m.control, axis), _decayed(bout, m.treatment, axis)) for m in bout.matches]
    if any(not one or not other for one, other in curves):
        return None
    amounts = [min(one[-1][0], other[-1][0]) for one, other in curves]
    deltas = [at(other, x) - at(one, x) for (one, other), x in zip(curves, amounts, strict=True)]
    if not np.isfinite(deltas).all():
        return None
    return IsoRow(axis, float(np.mean(amounts)), _effect(deltas, bout, level))


def at(curve: Sequence[tuple[float, float]], amount: float) -> float:
    """Loss at an amount, straight in its logarithm between decayed points; NaN below the first.

    The caller asks for no more than the curve's end.
    """
    x = np.log([point[0] for point in curve])
    y = [point[1] for point in curve]
    return float(np.interp(math.log(amount), x, y, left=math.nan))


def _decayed(bout: Bout, run: RunRecord, axis: str) -> list[tuple[float, float]]:
    """(amount, loss) of the run's decayed checkpoints, by amount."""
    outcomes = [bout.outcome(run, share) for share in sorted(run.branches)] + [bout.outcome(run)]
    usable = [outcome for outcome in outcomes if outcome and outcome.decayed and _amount(outcome, axis) > 0]
    return sorted((_amount(outcome, axis), outcome.loss) for outcome in usable)


def _amount(outcome: Outcome, axis: str) -> float:
    return float(getattr(outcome, _FIELD[axis]))


def _effect(deltas: Sequence[float], bout: Bout, level: float) -> Effect:
    if len(deltas) == 1:
        return single_pair(deltas[0])
    return effect_of(deltas, size=float(np.abs(bout.a).max()), level=level)
