"""What a sweep holds, without what a clock said: equal in two sweeps that trained the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import tensorstore

from harness.core.atomic_files import read_checksummed_json, read_json
from harness.records.paths import RunDir, SweepDir
from harness.records.run import metrics
from harness.records.run.checkpoint_manifest import manifest_steps, read_manifest
from harness.records.run.status import read_status
from tests.flips.commands import Answer

_CLOCKS = ("device_seconds", "input_seconds")
_HISTORY = ("surroundings",)


def numbers(comparison: Answer) -> str:
    """A comparison without how long it took, and without the hashes of the files that it read."""
    content = comparison.content
    times = {key: value for key, value in content["times"].items() if key != "compare_seconds"}
    left = {key: value for key, value in content.items() if key != "provenance"}
    return json.dumps(left | {"times": times}, sort_keys=True)


def verdict(content: Any) -> str:
    """A comparison without clocks and without what the runs went through."""
    left = {key: value for key, value in content.items() if key not in ("times", "provenance")}
    for rung in left["rungs"]:
        rung["iso"] = [row for row in rung["iso"] if row["axis"] != "device_seconds"]
    return json.dumps(left, sort_keys=True)


def substance(sweep: SweepDir) -> dict[str, Any]:
    """Every number on disk that a command reads, by name."""
    records = {
        "rule": read_json(sweep.rule),
        "learning rates": read_json(sweep.tune.learning_rates),
        "A/A library": read_checksummed_json(sweep.noise_floors),
        "timed": sorted((read_checksummed_json(sweep.timing) or {}).get("variants", {})),
    }
    for run in sweep.runs():
        for directory in (run, *run.branches()):
            name = directory.path.relative_to(sweep.path).as_posix()
            records |= {f"{name} {key}": value for key, value in _run(directory)}
    return records


def _run(run: RunDir) -> Iterator[tuple[str, Any]]:
    status, record = read_status(run), read_checksummed_json(run.run) or {}
    yield "status", (status.state.value, status.step, status.tokens, str(status.loss))
    yield "provenance", {key: value for key, value in record.items() if key not in _HISTORY}
    yield "config", run.config.read_text(errors="replace") if run.config.exists() else None
    yield "examples", read_checksummed_json(run.examples)
    yield "samples", read_checksummed_json(run.samples)
    yield "target", run.training_target.exists()
    yield "grid", run.sample_grid.read_bytes() if run.sample_grid.exists() else b""
    for kind in metrics.SCHEMAS:
        yield kind, _curve(run, kind)
    for step in manifest_steps(run):
        manifest = read_manifest(run, step)
        yield f"manifest {step}", manifest and (manifest.identity, manifest.example_hash)
        yield f"checkpoint {step}", _arrays(run.checkpoint(step) / "state")


def _curve(run: RunDir, kind: str) -> dict[str, Any]:
    """Every column, floats as the bits that they are."""
    table = metrics.read_curve(run, kind).drop(*_CLOCKS, strict=False)
    return {
        column.name: column.to_numpy().tobytes() if column.dtype == pl.Float64 else column.to_list()
        for column in table
    }


def _arrays(folder: Path) -> str:
    """Hash the arrays of a checkpoint as they are stored, uncompressed."""
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": f"file://{folder.absolute()}/"}).result()
    total = hashlib.sha256()
    for key in sorted(store.list().result()):
        total.update(key + b"\0" + store.read(key).result().value + b"\0")
    return total.hexdigest()
