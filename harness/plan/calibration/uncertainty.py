"""What the closed form of a step time is multiplied by, and how far it may be wrong, from published runs.

One factor, for everything. The shares of the peak are not fitted: they are what large products reach on each
chip. A row that was not in the fit is predicted with it; `leave_one_source_out` says how well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

from harness.plan.calibration.published_run import PublishedRun

COVERAGE = 0.9
"""Of an interval."""
REMEMBERED_WEIGHT = 0.5
"""Weight of a row of which something was remembered and not read."""
UNCERTAINTY = {
    "form": 0.07,
    "layout": 0.10,
    "chip": 0.10,
    "precision": 0.10,
    "experts": 0.06,
    "remembered": 0.05,
    "remat": 0.05,
    "launch": 0.5,
}
"""Standard deviations in ln that are added to the fit's, squared. Always `form`: terms and some constants
were changed by hand after a look at the very rows that the fit is judged on (docs/planning.md has the figures
of before), which makes the spread too small. The others for what is not known: the layout or the model's
sizes, the share of its peak that a chip reaches, speed in 4 bits, experts' balance and exchanges, what was
remembered, what is computed again; and of a prediction, how long kernels take to be started where a step
waits for that. All assumed, not fitted."""
KNOWN_CHIP_PREFIXES = ("A100", "A800", "H", "GB", "B", "TPU")


@dataclass(frozen=True)
class Calibration:
    """Closed-form seconds times `factor` are the prediction; ln of what is seen over it has the standard
    deviation `spread`, known from so many groups."""

    factor: float
    spread: float
    groups: int
    """Of rows that err alike: one source on one chip."""
    rows: int

    def log_half_width(self, sources: Sequence[str]) -> float:
        """ln of what a prediction is multiplied and divided by for an interval of COVERAGE."""
        deviation = math.sqrt(self.spread**2 + sum(UNCERTAINTY[doubt] ** 2 for doubt in sources))
        return float(stdtrit(max(1, self.groups - 1), (1 + COVERAGE) / 2)) * deviation


def uncertainty_sources(run: PublishedRun) -> tuple[str, ...]:
    """Keys of DOUBT that hold for a row."""
    sources = {
        "form": True,
        "layout": bool({"layout", "layers", "d_model", "batch"} & {*run.assumed_columns}),
        "chip": "chip" in run.assumed_columns or not run.chip.name.startswith(KNOWN_CHIP_PREFIXES),
        "precision": run.precision.matmul_dtype == "fp4",
        "experts": bool(run.model.experts),
        "remembered": bool(run.remembered_notes),
        "remat": "remat" in run.assumed_columns,
    }
    return tuple(key for key, holds in sources.items() if holds)


FITTED_CALIBRATION = Calibration(factor=1.0652, spread=0.1127, groups=10, rows=48)
"""`fit(look(rows))` of the 48 rows that docs/planning.md lists; a test refits it."""
