"""SQLite files: the project of trackio, or the store of MLflow."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from harness.compare.inputs.importers.imported_run import ImportedRun, flat_facts, frame_of_rows
from harness.compare.inputs.importers.mlflow_stores import read_tracking_store
from harness.core.errors import UserError

MAGIC = b"SQLite format 3\0"
TRACKIO_KIND = "trackio run"


def read_sqlite_file(file: Path) -> list[ImportedRun]:
    """Read the runs of a SQLite file by its tables. Raises UserError for the file of another tool."""
    address = f"file:{quote(str(file.absolute()))}?mode=ro"
    try:
        with closing(sqlite3.connect(address, uri=True)) as connection:
            rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            tables = {name for (name,) in rows}
            if {"runs", "metrics", "params", "experiments"} <= tables:
                return read_tracking_store(file, connection)
            if {"metrics", "configs"} <= tables:
                return _read_trackio(file, connection)
    except (sqlite3.Error, ValueError, RecursionError) as error:
        raise UserError(f"{file}: cannot be read as SQLite ({error})") from error
    raise UserError(
        f"{file}: is a SQLite file of neither trackio nor MLflow (tables: {', '.join(sorted(tables)[:8])}). "
        "Export its runs as CSV."
    )


def _read_trackio(file: Path, connection: sqlite3.Connection) -> list[ImportedRun]:
    """Read the runs of a trackio project. Projects of older versions have no run ids."""
    columns = {row[1] for row in connection.execute("PRAGMA table_info(metrics)")}
    key = "run_id" if "run_id" in columns else "run_name"
    facts: dict[str, dict[str, str]] = {}
    for run, config in connection.execute(f"SELECT {key}, config FROM configs"):
        settings = json.loads(config)
        facts[run] = flat_facts({name: value for name, value in settings.items() if name[:1] != "_"})
    rows: dict[str, list[dict[str, Any]]] = {}
    names: dict[str, str] = {}
    metrics = connection.execute(f"SELECT {key}, run_name, step, metrics FROM metrics ORDER BY id")
    for run, name, step, values in metrics:
        names[run] = name
        rows.setdefault(run, []).append({"step": step} | json.loads(values))
    return [
        ImportedRun(
            str(file), f"{file.as_posix()}/{names[run]}", TRACKIO_KIND, frame_of_rows(rows[run]),
            facts.get(run, {}) | {"run_id": run, "run_name": names[run]},
        )
        for run in rows
    ]  # fmt: skip
