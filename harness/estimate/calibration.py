"""Calibration of the closed-form step time with published runs: one factor, and its uncertainty.

The shares of the peak are not fitted: they are what large products reach on each chip. For errors on rows
that were not in the fit see `harness.plan.validation.leave_one_source_out`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

from harness.core.interval import Interval
from harness.estimate.clusters import Chip, Links
from harness.estimate.layouts import Layout, LayoutGrid
from harness.estimate.model_size import ModelShape
from harness.estimate.roofline import step_terms

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


LAUNCH_BOUND_SHARE = 0.1
"""Share of a step above which the time to start kernels widens the interval."""
FITTED_CALIBRATION = Calibration(factor=1.0652, spread=0.1127, groups=10, rows=48)
"""`fit_calibration(predict_rows(rows))` of the 48 rows in docs/planning.md; a test refits it."""


def model_doubts(model: ModelShape, chip: Chip) -> tuple[str, ...]:
    """Return the keys of UNCERTAINTY that apply to a step of this model on this chip in a known layout."""
    doubts = {
        "form": True,
        "chip": not chip.name.startswith(KNOWN_CHIP_PREFIXES),
        "precision": model.precision.matmul_dtype == "fp4",
        "experts": bool(model.experts),
    }
    return tuple(key for key, holds in doubts.items() if holds)


def launch_doubt(launch_seconds: float, step_seconds: float) -> tuple[str, ...]:
    """Return the doubt about the time to start kernels, where a step waits for it."""
    return ("launch",) if launch_seconds > LAUNCH_BOUND_SHARE * step_seconds else ()


def estimate_step(model: ModelShape, layout: Layout, chip: Chip, links: Links) -> Interval:
    """Return the seconds of a step of our own in a layout, calibrated, with their interval."""
    terms = step_terms(model, LayoutGrid.from_layouts([layout]), chip, links)
    seconds = float(terms.total[0])
    doubts = model_doubts(model, chip) + launch_doubt(float(terms.launch[0]), seconds)
    value = seconds * FITTED_CALIBRATION.factor
    spread = math.exp(FITTED_CALIBRATION.log_half_width(doubts))
    return Interval(value, value / spread, value * spread)
