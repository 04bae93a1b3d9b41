"""What was predicted of each finished run before it began, beside what it took: JSON lines in the cache."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.core import atomic_files
from harness.core.cache_dir import cache_dir

VERSION = 1
"""Of the fields, and of how `raw` is predicted: lines of another are skipped."""
MAX_LINES = 2000
"""Lines, the newest; the file may grow to twice as many before it is cut."""
MEASURED, ASSUMED = "earlier runs on this machine", "assumed"
"""What a prediction of this machine rests on, as a plan labels it."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Seconds of a step of one run: as predicted when it was placed, and as measured. Times are wall seconds
    of the whole lane."""

    run: str
    experiment: str
    launch: str
    """Equal for runs that were predicted together: the hash of their placement in the ledger."""
    program: str
    """What was compiled (`harness.launcher.cost.step_cost.program_of`)."""
    machine: str
    devices: int
    evidence: str
    raw: float
    """Before any correction by earlier records."""
    predicted: float
    """As it was said, with `low` and `high`."""
    low: float
    high: float
    measured: float
    date: str
    """On which its launch ended: ISO 8601, UTC."""


@dataclass(frozen=True)
class PredictionLog:
    predictions: tuple[Prediction, ...]
    """Oldest first."""
    skipped: int
    """Lines that are damaged, or of another version."""


def append_predictions(predictions: Sequence[Prediction]) -> None:
    """Add them in one write. Raises OSError.

    Where two sweeps end at the moment at which the file is cut, what one of them adds may be lost, which
    costs later predictions little.
    """
    path = _path()
    before = path.read_bytes() if path.exists() else b""
    torn = "\n" if before and not before.endswith(b"\n") else ""
    lines = [_line(each) for each in predictions]
    with path.open("ab", buffering=0) as file:
        file.write((torn + "".join(f"{line}\n" for line in lines)).encode())
    if len(before.splitlines()) + len(lines) > 2 * MAX_LINES:
        atomic_files.write_bytes(path, b"".join(path.read_bytes().splitlines(keepends=True)[-MAX_LINES:]))


def read_predictions() -> PredictionLog:
    """Nothing where there is no file, or none that may be read."""
    try:
        lines = _path().read_text(errors="replace").splitlines()
    except OSError:
        return PredictionLog((), 0)
    found = [_parsed(line) for line in lines if line.strip()]
    sound = tuple(each for each in found if each is not None)
    return PredictionLog(sound, len(found) - len(sound))


def _line(prediction: Prediction) -> str:
    content = {"version": VERSION, **dataclasses.asdict(prediction)}
    return json.dumps(content | {"checksum": atomic_files.json_checksum(content)}, sort_keys=True)


def _parsed(line: str) -> Prediction | None:
    """None for a line that was changed after it was written: a flipped bit in a number is still JSON."""
    try:
        content = json.loads(line)
        if (
            content.pop("checksum") != atomic_files.json_checksum(content)
            or content.pop("version") != VERSION
        ):
            return None
        return Prediction(**content)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _path() -> Path:
    return cache_dir("calibration") / "steps.jsonl"
