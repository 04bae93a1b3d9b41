"""Calibration fitted to published runs, and its errors on sources that were left out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.plan.calibration.published_run import PublishedRun, read_published_run
from harness.plan.calibration.uncertainty import REMEMBERED_WEIGHT, Calibration, uncertainty_sources
from harness.plan.predict import uncalibrated_cost
from harness.plan.validation.published_speed import observed_seconds


@dataclass(frozen=True)
class RowPrediction:
    """One published row beside its closed-form prediction, before any calibration. Seconds of a step."""

    run: PublishedRun
    published_seconds: float
    predicted_seconds: float

    @property
    def log_ratio(self) -> float:
        """Return ln(published / predicted)."""
        return math.log(self.published_seconds / self.predicted_seconds)

    @property
    def uncertainty_sources(self) -> tuple[str, ...]:
        """Return the keys of UNCERTAINTY that apply to the row."""
        return uncertainty_sources(self.run)


def fit_calibration(predictions: Sequence[RowPrediction]) -> Calibration:
    """Return the weighted mean of ln(published / predicted), and its spread about that. A group of n rows
    (one source on one chip) counts like sqrt(n) groups of one, since its rows err alike."""
    log_ratios = np.array([row.log_ratio for row in predictions])
    names = [(row.run.source, row.run.chip.name) for row in predictions]
    weights = np.array([names.count(name) ** -0.5 for name in names])
    weights *= np.array([REMEMBERED_WEIGHT if row.run.remembered_notes else 1.0 for row in predictions])
    mean = float(np.average(log_ratios, weights=weights))
    spread = math.sqrt(float(np.average((log_ratios - mean) ** 2, weights=weights)))
    return Calibration(math.exp(mean), spread, len({*names}), len(names))


def predict_rows(rows: Sequence[Mapping[str, Any]]) -> list[RowPrediction]:
    """Predict every row that has a step time, uncalibrated. Raises UserError."""
    runs = [(read_published_run(row), row) for row in rows]
    timed = [(run, observed_seconds(row, run.model)) for run, row in runs]
    return [
        RowPrediction(run, seconds, uncalibrated_cost(run)[0].seconds)
        for run, seconds in timed
        if seconds is not None
    ]


def leave_one_source_out(predictions: Sequence[RowPrediction]) -> list[tuple[RowPrediction, Calibration]]:
    """Return each row with the calibration of all other sources' rows."""
    names = {row.run.source for row in predictions}
    fits = {name: fit_calibration([row for row in predictions if row.run.source != name]) for name in names}
    return [(row, fits[row.run.source]) for row in predictions]
