"""Published runs, each predicted by a fit to the other sources: the table and its summary."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.core.errors import UserError
from harness.core.interval import Interval
from harness.plan.calibration.uncertainty import Calibration
from harness.plan.validation.fit import RowPrediction, fit_calibration, leave_one_source_out, predict_rows


@dataclass(frozen=True)
class HeldOutPrediction(Interval):
    """One row predicted by a fit without its source. Seconds of a step."""

    run: str
    source: str
    chip: str
    chips: int
    published: float
    raw: float
    """Seconds in closed form, uncalibrated."""

    @property
    def error(self) -> float:
        """Return the relative error of the prediction."""
        return abs(self.value / self.published - 1)

    @property
    def inside(self) -> bool:
        """Return whether the published time lies in the interval."""
        return self.contains(self.published)

    @property
    def width(self) -> float:
        """Return half the interval over the prediction."""
        return (self.high - self.low) / 2 / self.value


def predict_published_rows(path: Path) -> list[RowPrediction]:
    """Read a CSV file with the columns of a published run, and predict its rows that have a step time. Raises
    UserError for a file that cannot be read, and for fewer than two sources."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            predictions = predict_rows(list(csv.DictReader(file)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        trouble = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path}: {trouble}. Give a CSV file with one published run a row.") from error
    sources = {prediction.run.source for prediction in predictions}
    if len(sources) < 2:
        raise UserError(
            f"{path}: {len(predictions)} rows have a step time, of {len(sources)} sources. A row is predicted"
            " from other sources, so give at least two."
        )
    return predictions


def cross_validate(predictions: Sequence[RowPrediction]) -> list[HeldOutPrediction]:
    """Predict each row with a fit to the other sources."""
    return [_held_out(row, calibration) for row, calibration in leave_one_source_out(predictions)]


def _held_out(prediction: RowPrediction, calibration: Calibration) -> HeldOutPrediction:
    run, value = prediction.run, prediction.predicted_seconds * calibration.factor
    factor = math.exp(calibration.log_half_width(prediction.uncertainty_sources))
    return HeldOutPrediction(
        run=run.id,
        source=run.source,
        chip=run.chip.name,
        chips=run.chips,
        published=prediction.published_seconds,
        raw=prediction.predicted_seconds,
        value=value,
        low=value / factor,
        high=value * factor,
    )


def accuracy_summary(predictions: Sequence[RowPrediction]) -> str:
    """Return one sentence on the errors of all rows, and on the fit to all rows."""
    rows, calibration = cross_validate(predictions), fit_calibration(predictions)
    errors = [row.error for row in rows]
    raw = np.mean([abs(row.raw / row.published - 1) for row in rows])
    inside, width = np.mean([row.inside for row in rows]), np.median([row.width for row in rows])
    return (
        f"{len(rows)} rows of {len({row.source for row in rows})} sources, each predicted without"
        f" its source: mean error {np.mean(errors):.1%}, nine rows of ten {np.quantile(errors, 0.9):.0%} or"
        f" less, {inside:.0%} inside the interval, whose median half width is {width:.0%}."
        f" Uncalibrated: {raw:.1%}. Fitted to all: factor {calibration.factor:.4f}, spread"
        f" {calibration.spread:.4f} (standard deviation in ln)."
    )
