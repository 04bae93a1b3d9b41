"""A real sweep says the same, byte for byte, whoever shares a worker and whatever devices a run got.

Slow: `make test-full`. One cache serves all three sweeps, so that what is compiled is counted.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.records.paths import SweepDir
from harness.records.run.status import State, read_status
from tests.training.runs import curve

COMMAND = [
    *(sys.executable, "-m", "harness.cli", "sweep", "variant=mha,short", "seed=0,1,2", "scale=xs"),
    *("scale.parameters=10000", "scale.tokens=60000", "checkpoint.every=10", "evaluation.tokens=2048"),
]


def sweep(folder: Path, cache: Path, isolation: str, *extra: str) -> dict:
    """Every curve, by run and kind, without the wall clock."""
    folder.mkdir()
    command = [*COMMAND, f"engine.isolation={isolation}", *extra]
    env = os.environ | {"AB_HARNESS_CACHE": str(cache)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = [*SweepDir(folder / "runs" / "adhoc").runs()]
    assert [read_status(run).state for run in runs] == [State.finished] * 6
    return {
        (run.path.parts[-2:], kind): curve(run, kind).to_dict(as_series=False)
        for run in runs
        for kind in ("steps", "evals")
    }


@pytest.mark.slow
def test_one_sweep_three_isolations(tmp_path):
    cache = tmp_path / "cache"
    # Two blocks at a time: the third gets whatever devices come free first.
    together = sweep(tmp_path / "all", cache, "all", "engine.workers=2")
    steps = {path: path.stat().st_mtime_ns for path in (cache / "programs").glob("step-*.bin")}
    assert len(steps) == 2, "one compile a variant serves the equal sub-meshes of all its runs"
    assert together == sweep(tmp_path / "block", cache, "block")
    assert together == sweep(tmp_path / "run", cache, "run")
    assert {path: path.stat().st_mtime_ns for path in (cache / "programs").glob("step-*.bin")} == steps
