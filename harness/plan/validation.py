"""Errors of the cost model on published runs, each predicted by a calibration fitted to the other sources."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.config.schema.run import Remat
from harness.core.errors import UserError
from harness.core.interval import Interval
from harness.estimate.calibration import Calibration
from harness.estimate.model_size import ModelShape, read_number, require_number
from harness.plan.calibration.published_run import PublishedRun, read_published_run, read_remat
from harness.plan.calibration.uncertainty import REMEMBERED_WEIGHT, uncertainty_sources
from harness.plan.predict import uncalibrated_cost


@dataclass(frozen=True)
class RowPrediction:
    """Published row beside its closed-form prediction, before any calibration. Seconds of a step."""

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


@dataclass(frozen=True)
class HeldOutPrediction(Interval):
    """Row predicted by a fit without its source. Seconds of a step."""

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
        found = f"{len(predictions)} rows have a step time, of {len(sources)} sources"
        raise UserError(f"{path}: {found}. A row is predicted from other sources, so give at least two.")
    return predictions


def predict_rows(rows: Sequence[Mapping[str, Any]]) -> list[RowPrediction]:
    """Predict every row that has a step time, uncalibrated. Raises UserError."""
    runs = [read_published_run(row) for row in rows]
    timed = [(run, observed_seconds(row, run.model)) for run, row in zip(runs, rows, strict=True)]
    known = [(run, seconds) for run, seconds in timed if seconds is not None]
    return [RowPrediction(run, seconds, uncalibrated_cost(run)[0].seconds) for run, seconds in known]


def observed_seconds(row: Mapping[str, Any], model: ModelShape) -> float | None:
    """Return the published seconds of a step, also from tokens per second, or from FLOP/s in the row's own
    convention; None if the row has none of these."""
    seconds, rate = read_number(row, "step_time_s"), read_number(row, "tokens_s_dev")
    chips = require_number(row, "chips")
    if seconds:
        return seconds
    if rate:
        return model.tokens_per_step / (rate * chips)
    teraflops, peak = read_number(row, "tflops_per_dev"), read_number(row, "peak_tflops_bf16")
    share = read_number(row, "mfu_pct") or read_number(row, "hfu_pct")
    if teraflops:
        speed = teraflops * 1e12
    elif share is not None and peak is not None:
        speed = share / 100 * peak * 1e12
    else:
        return None
    return convention_flops(row, model) / (speed * chips)


def convention_flops(row: Mapping[str, Any], model: ModelShape) -> float:
    """Return the FLOPs of a step as the row's source counts them: with recomputation (`hardware`), without
    attention (6 N), with causal attention, or (the most common) with attention to all pairs."""
    convention = str(row.get("flops_convention") or "").lower()
    weights = model.flops_per_token - model.attention_flops
    square = 2 * model.attention_flops
    if re.search(r"\b6 ?nd?\b|6 ?\* ?n\b|6nt", convention):
        return 6 * (model.active_parameters + model.embedding) * model.tokens_per_step
    if "causal" in convention and not re.search(r"not (halved|counted)|non-?causal|without", convention):
        square = model.attention_flops
    only_mfu = read_number(row, "tflops_per_dev") is None and read_number(row, "mfu_pct") is not None
    hardware = re.search(r"hardware|incl[a-z.]* recompute|counts full recompute", convention) and not only_mfu
    told_hfu = read_number(row, "tflops_per_dev") is None and read_number(row, "mfu_pct") is None
    recompute_factor = 4 / 3 if (hardware or told_hfu) and read_remat(row) is not Remat.none else 1.0
    return (weights + square) * recompute_factor * model.tokens_per_step


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


def leave_one_source_out(predictions: Sequence[RowPrediction]) -> list[tuple[RowPrediction, Calibration]]:
    """Return each row with the calibration of all other sources' rows."""
    names = {row.run.source for row in predictions}
    fits = {name: fit_calibration([row for row in predictions if row.run.source != name]) for name in names}
    return [(row, fits[row.run.source]) for row in predictions]


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
