"""Predicted and measured step times of each finished run: JSON lines in the cache."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.core import atomic_files
from harness.core.cache_dir import cache_dir

VERSION = 1
"""Version of the fields and of how `raw` is predicted. Lines with another version are skipped."""
MAX_LINES = 2000
"""Newest lines that are kept; the file may grow to twice as many before it is cut."""
MEASURED, ASSUMED = "earlier runs on this machine", "assumed"
"""Labels of the evidence that a prediction for this machine rests on."""


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
    """Append the records in one write. Raises OSError. If two sweeps end while the file is being cut, the
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
    except OSError:
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
