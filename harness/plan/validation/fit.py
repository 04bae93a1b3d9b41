"""The calibration that fits published runs, and its errors on sources that were left out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.plan.calibration.published_run import PublishedRun, read_published_run
from harness.plan.calibration.uncertainty import REMEMBERED_WEIGHT, Calibration, uncertainty_sources
from harness.plan.validation.published_speed import observed_seconds


@dataclass(frozen=True)
class RowPrediction:
    """One published row beside what the closed form says of it, before any calibration."""

    run: PublishedRun
    published_seconds: float
    """Seconds a step."""
    predicted_seconds: float

    @property
    def log_ratio(self) -> float:
        return math.log(self.published_seconds / self.predicted_seconds)

    @property
    def uncertainty_sources(self) -> tuple[str, ...]:
        return uncertainty_sources(self.run)


def fit_calibration(predictions: Sequence[RowPrediction]) -> Calibration:
    """The weighted mean of ln(published / predicted), and its spread about that. A group of n rows, those of
    one source on one chip, counts like sqrt(n) groups of one, since its rows err alike."""
    each = np.array([one.log_ratio for one in predictions])
    names = [(one.run.source, one.run.chip.name) for one in predictions]
    weights = np.array([names.count(name) ** -0.5 for name in names])
    weights *= np.array([REMEMBERED_WEIGHT if one.run.remembered_notes else 1.0 for one in predictions])
    mean = float(np.average(each, weights=weights))
    spread = math.sqrt(float(np.average((each - mean) ** 2, weights=weights)))
    return Calibration(math.exp(mean), spread, len({*names}), len(names))


def predict_rows(rows: Sequence[Mapping[str, Any]]) -> list[RowPrediction]:
    """Every row that tells a step time, beside the uncalibrated closed form. Raises UserError."""
    from harness.plan.predict import uncalibrated_cost

    read = [(row, read_published_run(row)) for row in rows]
    told = [(one, observed_seconds(row, one.model)) for row, one in read]
    return [
        RowPrediction(one, seconds, uncalibrated_cost(one)[0].seconds)
        for one, seconds in told
        if seconds is not None
    ]


def leave_one_source_out(predictions: Sequence[RowPrediction]) -> list[tuple[RowPrediction, Calibration]]:
    """Each row with the calibration of all other sources' rows."""
    names = {one.run.source for one in predictions}
    without = {
        name: fit_calibration([one for one in predictions if one.run.source != name]) for name in names
    }
    return [(one, without[one.run.source]) for one in predictions]
