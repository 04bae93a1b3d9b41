"""What the closed form of a step time is multiplied by, and how far it may be wrong, from published runs.

One factor, for everything. The shares of the peak are not fitted: they are what large products reach on each
chip. A row that was not in the fit is predicted with it; `leave_one_source_out` says how well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from harness.plan.calibration.published_run import Row, read_row
from harness.plan.cost_model.roofline import Efficiency
from harness.plan.validation.published_speed import observed_seconds

COVERAGE = 0.9
"""Of an interval."""
REMEMBERED = 0.5
"""Weight of a row of which something was remembered and not read."""
DOUBT = {
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
SHARES = {"A100": 0.80, "A800": 0.80, "H": 0.68, "GB": 0.70, "B": 0.70, "TPU": 0.85, "MI": 0.55, "V100": 0.75}
"""Of the peak of a chip, by how its name begins: what large 16-bit products reach before any waiting. Set
before anything was fitted; those of MI, V100 and of any other chip (UNKNOWN_SHARE) assumed."""
SURE = ("A100", "A800", "H", "GB", "B", "TPU")
EXPERTS = 0.62
"""Of that, what small grouped products of experts reach."""
NARROW = {"fp8": 0.8, "fp4": 0.5}
"""Of the peak in so few bits as against the share in 16: casts, and products that stay wider. Assumed."""
UNKNOWN_SHARE = 0.6


@dataclass(frozen=True)
class Calibration:
    """Closed-form seconds times `factor` are the prediction; ln of what is seen over it has the standard
    deviation `spread`, known from so many groups."""

    factor: float
    spread: float
    groups: int
    """Of rows that err alike: one source on one chip."""
    rows: int

    def interval(self, doubts: Sequence[str]) -> float:
        """ln of what a prediction is multiplied and divided by for an interval of COVERAGE."""
        deviation = math.sqrt(self.spread**2 + sum(DOUBT[doubt] ** 2 for doubt in doubts))
        return float(stdtrit(max(1, self.groups - 1), (1 + COVERAGE) / 2)) * deviation


@dataclass(frozen=True)
class Seen:
    """One published row beside what the closed form says of it, before any calibration."""

    row: Row
    published: float
    """Seconds a step."""
    predicted: float

    @property
    def log_ratio(self) -> float:
        return math.log(self.published / self.predicted)

    @property
    def doubts(self) -> tuple[str, ...]:
        return doubts_of(self.row)


def efficiency(chip: str) -> Efficiency:
    """By the chip's name."""
    share = next((share for name, share in SHARES.items() if chip.startswith(name)), UNKNOWN_SHARE)
    return Efficiency(share, share * EXPERTS, NARROW)


def doubts_of(row: Row) -> tuple[str, ...]:
    """Keys of DOUBT that hold for a row."""
    said = {
        "form": True,
        "layout": bool({"layout", "layers", "d_model", "batch"} & {*row.assumed}),
        "chip": "chip" in row.assumed or not row.chip.name.startswith(SURE),
        "precision": row.recipe.precision == "fp4",
        "experts": bool(row.model.experts),
        "remembered": bool(row.doubtful),
        "remat": "remat" in row.assumed,
    }
    return tuple(key for key, holds in said.items() if holds)


def fit(seen: Sequence[Seen]) -> Calibration:
    """The weighted mean of ln(published / predicted), and its spread about that. A group of n rows, those of
    one source on one chip, counts like sqrt(n) groups of one, since its rows err alike."""
    each = np.array([one.log_ratio for one in seen])
    names = [(one.row.source, one.row.chip.name) for one in seen]
    weights = np.array([names.count(name) ** -0.5 for name in names])
    weights *= np.array([REMEMBERED if one.row.doubtful else 1.0 for one in seen])
    mean = float(np.average(each, weights=weights))
    spread = math.sqrt(float(np.average((each - mean) ** 2, weights=weights)))
    return Calibration(math.exp(mean), spread, len({*names}), len(names))


def look(rows: Sequence[Mapping[str, Any]]) -> list[Seen]:
    """Every row that tells a step time, beside the uncalibrated closed form. Raises UserError."""
    from harness.plan.predict import closed_form

    read = [(row, read_row(row)) for row in rows]
    told = [(one, observed_seconds(row, one.model)) for row, one in read]
    return [Seen(one, seconds, closed_form(one)[0].seconds) for one, seconds in told if seconds is not None]


def leave_one_source_out(seen: Sequence[Seen]) -> list[tuple[Seen, Calibration]]:
    """Each row with the calibration of all other sources' rows."""
    names = {one.row.source for one in seen}
    without = {name: fit([one for one in seen if one.row.source != name]) for name in names}
    return [(one, without[one.row.source]) for one in seen]


FITTED = Calibration(factor=1.0652, spread=0.1127, groups=10, rows=48)
"""`fit(look(rows))` of the 48 rows that docs/planning.md lists; a test refits it."""
