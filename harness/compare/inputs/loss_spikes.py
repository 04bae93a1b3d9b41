"""Loss spikes: steps at which a run's training loss leaps above what it was, and stays there for a while."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from harness.compare.inputs.run_records import RunRecord
from harness.records.run.metrics import read_curve

CENTRE, SPREAD, LEAST = 32, 128, 16
"""Steps behind a step that its level and its noise are taken from, and the fewest that will do."""
LIMIT = 7.0


def find_spikes(losses: ArrayLike) -> list[int]:
    """Positions at which a spike begins; losses: shape (steps,), in order.

    A spike: two steps in a row that each lie more than LIMIT standard deviations above the median of the
    CENTRE steps before; two, because a hard batch raises one step, while a model that was thrown off needs
    several to return. The deviation is that of the noise from step to step, 1.4826 / sqrt 2 times the
    median |difference| over SPREAD steps, which neither the curve's fall nor the spike itself widens. What
    follows within CENTRE steps belongs to the same spike. A loss that is not finite is one by itself.
    The limit is that of the spike score of OLMo 2 (arXiv:2501.00656: 7 SDs from a rolling mean).
    """
    x = np.asarray(losses, float)
    lost, high = ~np.isfinite(x), _leaps(x)
    begins = lost | (high & np.append(high[1:], False))
    found, last = [], -np.inf
    for position in np.flatnonzero(begins[: x.size]).tolist():
        if position - last > CENTRE:
            found.append(position)
        last = position
    return found


def spiked(run: RunRecord) -> bool | None:
    """Whether a run's step table shows a spike; None where there is no table to read."""
    if run.directory is None:
        return None
    losses = read_curve(run.directory, "steps")["loss"].to_numpy()
    return bool(find_spikes(losses)) if losses.size else None


def _leaps(x: np.ndarray) -> np.ndarray:
    """Which steps lie above the limit; those without LEAST steps before them do not."""
    losses = pl.Series(np.where(np.isfinite(x), x, np.nan)).fill_nan(None)
    level = losses.rolling_median(CENTRE, min_samples=LEAST).shift(1)
    noise = losses.diff().abs().rolling_median(SPREAD, min_samples=LEAST).shift(1) * (1.4826 / 2**0.5)
    return ((noise > 0) & (losses - level > LIMIT * noise)).fill_null(False).to_numpy()
