"""Whether a sweep is as if nothing had happened to it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl

from harness.core.atomic_files import read_json
from harness.records.paths import RunDir, SweepDir
from harness.records.run import metrics
from harness.records.run.checkpoint_manifest import manifest_steps
from harness.records.run.provenance import read_provenance
from harness.records.run.run_lock import owner
from harness.records.run.status import State, read_status
from harness.records.sweep import ledger


def assert_as(calm: SweepDir, sweep: SweepDir) -> None:
    """Every run and branch finished, with every curve bitwise that of the undisturbed sweep, each step
    once; nothing is held, half written or left over."""
    assert [run.path.relative_to(sweep.path) for run in _all(sweep)] == [
        run.path.relative_to(calm.path) for run in _all(calm)
    ]
    for run, other in zip(_all(sweep), _all(calm), strict=True):
        assert read_status(run).state is State.finished, run.path
        _assert_curves(run, other)
        assert read_json(run.path / "examples.json") == read_json(other.path / "examples.json")
    assert owner(sweep.driver_lock) is None
    assert [run.path for run in sweep.runs() if owner(run.worker_lock)] == []
    assert leftovers(sweep) == []
    assert ledger.edited_positions(sweep) == []
    assert len(ledger.read(sweep, "rule")) == 1


def _all(sweep: SweepDir) -> list[RunDir]:
    return [each for run in sweep.runs() for each in (run, *run.branches())]


def _assert_curves(run: RunDir, other: RunDir) -> None:
    record = read_provenance(run)
    assert record is not None
    first = record.parent["step"] if record.parent else 0
    steps = metrics.read_curve(run, "steps")["step"].to_list()
    assert steps == list(range(first + 1, read_status(other).step + 1)), f"{run.path}: {steps}"
    for kind in metrics.SCHEMAS:
        assert _bits(run, kind) == _bits(other, kind), f"{kind} of {run.path}"


def _bits(run: RunDir, kind: str) -> dict[str, object]:
    """Every column but the wall clock; floats as the bits that they are."""
    table = metrics.read_curve(run, kind).drop("device_seconds", "input_seconds", strict=False)
    return {
        column.name: column.to_numpy().tobytes() if column.dtype == pl.Float64 else column.to_list()
        for column in table
    }


def leftovers(sweep: SweepDir) -> list[Path]:
    """Temporary files, and checkpoints without a manifest."""
    found = [
        path for path in sweep.path.rglob("*") if path.name.endswith(".tmp") or "checkpoint-tmp" in path.name
    ]
    for run in _all(sweep):
        known = {run.checkpoint(step) for step in manifest_steps(run)}
        found += [path for path in run.checkpoints.iterdir() if path.is_dir() and path not in known]
    return found


def verdict(sweep: SweepDir) -> str:
    """`harness compare --json`, without what a clock said, and what the runs went through: attempts, the
    ledger, checksums of manifests, which hold seconds."""
    command = [sys.executable, "-m", "harness.cli", "compare", str(sweep.path), "--json"]
    content = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    content.pop("times")
    content.pop("provenance")
    for rung in content["rungs"]:
        rung["iso"] = [row for row in rung["iso"] if row["axis"] != "device_seconds"]
    return json.dumps(content, sort_keys=True)
