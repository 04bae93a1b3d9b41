"""Loss spikes: steps at which a run's training loss jumps and stays high for several steps."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from harness.compare.inputs.run_records import RunRecord
from harness.records.run.metrics import read_curve

LEVEL_STEPS, NOISE_STEPS, MIN_STEPS = 32, 128, 16
"""Windows of preceding steps for the level and for the noise, and the fewest steps that are enough."""
LIMIT_SDS = 7.0
"""Standard deviations above the level that count as high."""


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
