"""Predicted and measured step times of finished runs: their log, and the correction of later predictions.

Runs that were placed together were predicted from the same rates, so their errors are correlated: a launch
counts as one sample, whatever its number of runs. The fit uses raw predictions, never corrected ones.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from harness.compare.stats.distributions import clopper_pearson
from harness.core import atomic_files
from harness.core.cache.cache_dir import cache_dir
from harness.core.errors import UserError
from harness.launcher.cost.step_cost import RunEstimate

COVERAGE = 0.9
"""Share of runs that a corrected interval is to contain."""
MIN_LAUNCHES = 9
"""Launches below which nothing is corrected: the worst of n errors bounds the next one with probability
n / (n + 1) and no more."""
MAX_LAUNCHES = 30
"""Newest launches that count: older ones were predicted by a worse predictor and are too pessimistic."""
VERSION = 1
"""Version of the fields and of how `raw` is predicted. Lines with another version are skipped."""
MAX_LINES = 2000
"""Newest lines that are kept; the file may grow to twice as many before it is cut."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Step time of one run, as predicted when it was placed and as measured, in wall seconds of its lane."""

    run: str
    experiment: str
    launch: str
    """Hash of the run's placement in the ledger; equal for runs that were predicted together."""
    program: str
    """Hash of the compiled program (`harness.launcher.cost.step_cost.program_hash`)."""
    machine: str
    devices: int
    evidence: str
    raw: float
    """Prediction before any correction by earlier records."""
    predicted: float
    """Prediction as it was reported, with its bounds `low` and `high`."""
    low: float
    high: float
    measured: float
    date: str
    """Date at which its launch ended: ISO 8601, UTC."""


@dataclass(frozen=True)
class PredictionLog:
    """Content of the log file."""

    predictions: tuple[Prediction, ...]
    """Valid records, oldest first."""
    skipped: int
    """Number of lines that are damaged or have another version."""


def append_predictions(predictions: Sequence[Prediction]) -> None:
    """Append the records in one write. Raises OSError or UserError. If two sweeps end while it is cut, the
    records of one may be lost, which costs later predictions little."""
    path = _path()
    before = path.read_bytes() if path.exists() else b""
    separator = "\n" if before and not before.endswith(b"\n") else ""
    lines = [_line(prediction) for prediction in predictions]
    with path.open("ab", buffering=0) as file:
        file.write((separator + "".join(f"{line}\n" for line in lines)).encode())
    if len(before.splitlines()) + len(lines) > 2 * MAX_LINES:
        atomic_files.write_bytes(path, b"".join(path.read_bytes().splitlines(keepends=True)[-MAX_LINES:]))


def read_predictions() -> PredictionLog:
    """Return the log; empty if there is no file, or it cannot be read."""
    try:
        lines = _path().read_text(errors="replace").splitlines()
    except (OSError, UserError):
        return PredictionLog((), 0)
    records = [_parse(line) for line in lines if line.strip()]
    valid = tuple(record for record in records if record is not None)
    return PredictionLog(valid, len(records) - len(valid))


def _line(prediction: Prediction) -> str:
    content = {"version": VERSION, **dataclasses.asdict(prediction)}
    return json.dumps(content | {"checksum": atomic_files.json_checksum(content)}, sort_keys=True)


def _parse(line: str) -> Prediction | None:
    """Return the record; None if the line was changed: a flipped bit in a number is still valid JSON."""
    try:
        content = json.loads(line)
        if content.pop("checksum") != atomic_files.json_checksum(content):
            return None
        return Prediction(**content) if content.pop("version") == VERSION else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _path() -> Path:
    return cache_dir("calibration") / "steps.jsonl"


@dataclass(frozen=True)
class Correction:
    """Factor from a raw to a corrected step time. COVERAGE of runs lie within exp(`spread`) of it."""

    factor: float
    spread: float
    launches: int


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of the predictions for one kind of machine that rest on one kind of evidence. Each launch has
    the same weight in all fields but `worst`."""

    machine: str
    evidence: str
    runs: int
    launches: int
    median: float
    """Median of |predicted / measured - 1|."""
    worst: float
    inside: float
    """Share of runs whose step time lay within the predicted interval."""
    inside_low: float
    inside_high: float
    """95 % bounds of `inside` (Clopper and Pearson), with each launch a single trial."""
    factor: float
    """Median of measured / raw."""
    now: Correction | None
    """Correction that a plan applies; None if it uses raw predictions."""


def fit_correction(predictions: Sequence[Prediction]) -> Correction | None:
    """Fit the correction for one kind of machine and evidence. `predictions`: oldest first.

    Returns None for fewer than MIN_LAUNCHES launches. The spread is the quantile of hierarchical conformal
    prediction (Lee, Barber, Willett 2023, arXiv:2306.06342) over |ln(measured / raw) - center|, where the
    center is that of the other launches. With one run a launch it is the k-th smallest of n,
    k = ceil((n + 1) COVERAGE).
    """
    names = [*dict.fromkeys(record.launch for record in reversed(predictions))][:MAX_LAUNCHES]
    if len(names) < MIN_LAUNCHES:
        return None
    recent = [record for record in predictions if record.launch in names]
    ratios, weights = _log_ratios(recent), _launch_weights(recent)
    launches = np.array([record.launch for record in recent])
    deviations = np.empty(len(recent))
    for name in names:
        members = launches == name
        center = _weighted_median(ratios[~members], weights[~members])
        deviations[members] = np.abs(ratios[members] - center)
    spread = _weighted_quantile(np.append(deviations, np.inf), np.append(weights, 1.0), COVERAGE)
    return Correction(math.exp(_weighted_median(ratios, weights)), spread, len(names))


def fit_corrections(predictions: Iterable[Prediction], machine: str) -> dict[str, Correction]:
    """Return the corrections for one kind of machine, by evidence."""
    groups = accuracy_by_evidence(record for record in predictions if record.machine == machine)
    return {group.evidence: group.now for group in groups if group.now}


def apply_correction(estimate: RunEstimate, corrections: Mapping[str, Correction]) -> RunEstimate:
    """Return the estimate with corrected step times. Its interval never becomes narrower, as a factor."""
    correction = corrections.get(estimate.evidence)
    if correction is None:
        return estimate
    longer = dataclasses.replace(estimate, train=estimate.train * correction.factor, factor=correction.factor)
    spread = math.exp(correction.spread)
    low = longer.seconds / max(spread, estimate.seconds / estimate.low)
    high = longer.seconds * max(spread, estimate.high / estimate.seconds)
    return dataclasses.replace(longer, low=low, high=high)


def accuracy_by_evidence(predictions: Iterable[Prediction]) -> list[Accuracy]:
    """Return the accuracy for each kind of machine and evidence. `predictions`: oldest first."""

    def group_key(record: Prediction) -> tuple[str, str]:
        return record.machine, record.evidence

    groups = groupby(sorted(predictions, key=group_key), group_key)
    return [_accuracy(*key, [*records]) for key, records in groups]


def _accuracy(machine: str, evidence: str, records: Sequence[Prediction]) -> Accuracy:
    weights = _launch_weights(records)
    launches = len({record.launch for record in records})
    errors = np.array([abs(record.predicted / record.measured - 1) for record in records])
    inside = np.array([record.low <= record.measured <= record.high for record in records])
    share = float(np.average(inside, weights=weights))
    low, high = clopper_pearson(share * launches, launches)
    return Accuracy(
        machine=machine,
        evidence=evidence,
        runs=len(records),
        launches=launches,
        median=_weighted_median(errors, weights),
        worst=float(errors.max()),
        inside=share,
        inside_low=low,
        inside_high=high,
        factor=math.exp(_weighted_median(_log_ratios(records), weights)),
        now=fit_correction(records),
    )


def _log_ratios(records: Sequence[Prediction]) -> np.ndarray:
    return np.log([record.measured / record.raw for record in records])


def _launch_weights(records: Sequence[Prediction]) -> np.ndarray:
    """Return weights that add up to 1 for each launch."""
    runs = Counter(record.launch for record in records)
    return np.array([1 / runs[record.launch] for record in records])


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    """Return the median; the middle of two values if the weights are cut in half between them."""
    return (_weighted_quantile(values, weights, 0.5) - _weighted_quantile(-values, weights, 0.5)) / 2


def _weighted_quantile(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    """Return the smallest value that at least `share` of the weight does not exceed, but for rounding."""
    return float(np.quantile(values, share - 1e-9, weights=weights, method="inverted_cdf"))
