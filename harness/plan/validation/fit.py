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
    log_ratios = np.array([prediction.log_ratio for prediction in predictions])
    names = [(prediction.run.source, prediction.run.chip.name) for prediction in predictions]
    weights = np.array([names.count(name) ** -0.5 for name in names])
    weights *= np.array(
        [REMEMBERED_WEIGHT if prediction.run.remembered_notes else 1.0 for prediction in predictions]
    )
    mean = float(np.average(log_ratios, weights=weights))
    spread = math.sqrt(float(np.average((log_ratios - mean) ** 2, weights=weights)))
    return Calibration(math.exp(mean), spread, len({*names}), len(names))


def predict_rows(rows: Sequence[Mapping[str, Any]]) -> list[RowPrediction]:
    """Every row that tells a step time, beside the uncalibrated closed form. Raises UserError."""
    from harness.plan.predict import uncalibrated_cost

    read = [(row, read_published_run(row)) for row in rows]
    timed = [(run, observed_seconds(row, run.model)) for row, run in read]
    return [
        RowPrediction(run, seconds, uncalibrated_cost(run)[0].seconds)
        for run, seconds in timed
        if seconds is not None
    ]


def leave_one_source_out(predictions: Sequence[RowPrediction]) -> list[tuple[RowPrediction, Calibration]]:
    """Each row with the calibration of all other sources' rows."""
    names = {prediction.run.source for prediction in predictions}
    without = {
        name: fit_calibration([prediction for prediction in predictions if prediction.run.source != name])
        for name in names
    }
    return [(prediction, without[prediction.run.source]) for prediction in predictions]
