"""Calibration of the closed-form step time with published runs: one factor, and its uncertainty.

The shares of the peak are not fitted: they are what large products reach on each chip. For errors on rows
that were not in the fit see `harness.plan.validation.leave_one_source_out`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

COVERAGE = 0.9
"""Probability that an interval holds the measured value."""
UNCERTAINTY = {
    "form": 0.07, "layout": 0.10, "chip": 0.10, "precision": 0.10, "experts": 0.06, "remembered": 0.05,
    "remat": 0.05, "launch": 0.5,
}  # fmt: skip
"""Standard deviations in ln that are added to the fit's, squared. `form` always counts: terms and some
constants were changed by hand after a look at the very rows that judge the fit (docs/planning.md has the
earlier figures), which makes the spread too small. The others stand for unknowns: the layout or the model's
sizes, the share of its peak that a chip reaches, speed in 4 bits, experts' balance and exchanges, remembered
values, remat; and in a prediction, kernel start time where a step waits for it. All assumed, not fitted."""
KNOWN_CHIP_PREFIXES = ("A100", "A800", "H", "GB", "B", "TPU")
"""Beginnings of the names of chips whose share of the peak is known."""


@dataclass(frozen=True)
class Calibration:
    """Factor from closed-form to predicted seconds."""

    factor: float
    spread: float
    """Standard deviation of ln(measured / predicted)."""
    groups: int
    """Number of groups of rows that err alike: one source on one chip."""
    rows: int

    def log_half_width(self, sources: Sequence[str]) -> float:
        """Return ln of the factor either way that bounds an interval of COVERAGE."""
        deviation = math.sqrt(self.spread**2 + sum(UNCERTAINTY[doubt] ** 2 for doubt in sources))
        return float(stdtrit(max(1, self.groups - 1), (1 + COVERAGE) / 2)) * deviation


FITTED_CALIBRATION = Calibration(factor=1.0652, spread=0.1127, groups=10, rows=48)
"""`fit_calibration(predict_rows(rows))` of the 48 rows in docs/planning.md; a test refits it."""
