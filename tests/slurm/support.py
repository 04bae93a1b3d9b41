"""A paired sweep of a few seconds, driven from a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from harness.records.layout import RunDir, SweepDir
from harness.records.status import read_status

ROOT = Path(__file__).parents[2]
STEPS = 256
TRIAL = (
    "experiment=attention",
    "scale=xs",
    "variant=mha,short",
    "seed=0",
    f"scale.tokens={STEPS * 512}",
    "checkpoint.every=16",
    "evaluation.points=2",
    "schedule.branches=[]",
)


def command(runs: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "harness.cli", "sweep", *TRIAL, f"runs={runs}", *more]


def sweep(runs: Path, env: Mapping[str, str], *more: str, before: tuple[str, ...] = ()) -> subprocess.Popen:
    """`before`: what the command is given to, such as `salloc`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("JAX", "XLA"))}
    with (runs / "driver.txt").open("ab") as out:
        return subprocess.Popen(
            [*before, *command(runs, *more)],
            env=kept | dict(env) | {"PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def run_of(runs: Path) -> RunDir:
    return SweepDir(runs / "attention").run("xs", "mha", 0)


def wait_for_step(runs: Path, step: int, seconds: float = 120.0) -> None:
    wait_for(lambda: read_status(run_of(runs)).step >= step, runs, seconds)


def wait_for(condition, runs: Path, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, said(runs)
        time.sleep(0.02)


def said(runs: Path) -> str:
    return (runs / "driver.txt").read_text()
