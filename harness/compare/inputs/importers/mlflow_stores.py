"""Runs of MLflow: a file store (`mlruns/`) or a SQLite store (`mlflow.db`)."""

from __future__ import annotations

import math
import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from harness.compare.inputs.importers.imported_run import ImportedRun, frame_of_rows, rows_by_step
from harness.core.errors import UserError

KIND = "MLflow run"
META = "meta.yaml"
_LARGEST = 1.79e308
"""Magnitude from which on a value of a SQLite store stands for infinity."""

Point = tuple[int, int, str, float]
"""(timestamp, step, metric, value)."""


def is_run_folder(folder: Path) -> bool:
    """Return True for the folder of a run in a file store."""
    return (folder / META).is_file() and (folder / "metrics").is_dir()


def read_run_folder(folder: Path) -> ImportedRun | None:
    """Read one run of a file store; None for a deleted run."""
    try:
        meta = yaml.safe_load((folder / META).read_text("utf-8"))
        metrics = folder / "metrics"
        points = [
            point
            for file in sorted(metrics.rglob("*"))
            if file.is_file()
            for point in _metric_points(file, file.relative_to(metrics).as_posix())
        ]
        params = folder / "params"
        facts = {
            file.relative_to(params).as_posix(): file.read_text("utf-8").strip()
            for file in sorted(params.rglob("*"))
            if file.is_file()
        }
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{folder}: is not a run of MLflow ({str(error).splitlines()[0]})") from error
    meta = meta if isinstance(meta, dict) else {}
    if meta.get("lifecycle_stage") == "deleted":
        return None
    run_id = str(meta.get("run_id") or folder.name)
    return _run(folder, run_id, str(meta.get("run_name") or run_id), points, facts)


def _metric_points(file: Path, metric: str) -> Iterable[Point]:
    """Yield the lines of a metric: timestamp, value and, since MLflow 1.0, step."""
    for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
        words = line.split()
        try:
            timestamp, value = int(words[0]), float(words[1])
            yield timestamp, int(words[2]) if len(words) > 2 else 0, metric, value
        except (ValueError, IndexError) as error:
            raise UserError(f"{file}: line {number} is not 'timestamp value step': {line[:60]}") from error


def read_tracking_store(file: Path, connection: sqlite3.Connection) -> list[ImportedRun]:
    """Read the runs of a SQLite store, without deleted ones."""
    runs = connection.execute(
        "SELECT r.run_uuid, r.name, e.name FROM runs r LEFT JOIN experiments e USING (experiment_id) "
        "WHERE r.lifecycle_stage = 'active' ORDER BY r.start_time, r.run_uuid"
    ).fetchall()
    points: dict[str, list[Point]] = defaultdict(list)
    rows = connection.execute("SELECT run_uuid, timestamp, step, key, value, is_nan FROM metrics")
    for run, timestamp, step, metric, value, is_nan in rows:
        points[run].append((timestamp, step, metric, math.nan if is_nan else _unclipped(value)))
    facts: dict[str, dict[str, str]] = defaultdict(dict)
    for run, name, value in connection.execute("SELECT run_uuid, key, value FROM params"):
        facts[run][name] = str(value)
    return [
        _run(file, run, name or run, points[run], facts[run] | {"experiment": str(experiment)})
        for run, name, experiment in runs
    ]


def _unclipped(value: float) -> float:
    return math.copysign(math.inf, value) if abs(value) >= _LARGEST else value


def _run(
    place: Path, run_id: str, run_name: str, points: Iterable[Point], facts: dict[str, Any]
) -> ImportedRun:
    in_order = sorted(points, key=lambda point: point[:2])
    frame = frame_of_rows(rows_by_step((step, metric, value) for _, step, metric, value in in_order))
    facts = facts | {"run_id": run_id, "run_name": run_name}
    return ImportedRun(str(place), f"{place.as_posix()}/{run_name}", KIND, frame, facts)
