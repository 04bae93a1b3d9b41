"""A paired sweep of a few seconds, driven from a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from harness.launcher.engines.preflight import PREFLIGHT_NAME
from harness.launcher.engines.slurm.script import job_name, submitted_runs
from harness.records.paths import RunDir, SweepDir
from harness.records.run.status import State, read_status
from tests.launcher.soak.whole import assert_as
from tests.slurm.cluster import Cluster, processes

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

TOGETHER = ("mesh.data=2", "engine.processes=2", f"scale.tokens={128 * 512}")
"""Two processes a run, of one device each."""


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


def run_of(runs: Path, variant: str = "mha") -> RunDir:
    return SweepDir(runs / "attention").run("xs", variant, 0)


def finished(driver: subprocess.Popen, runs: Path, calm: SweepDir) -> None:
    assert driver.wait(240) == 0, said(runs)
    assert_as(calm, SweepDir(runs / "attention"))


def jobs_of(cluster: Cluster, runs: Path, states: str = "pending,running,completing") -> set[str]:
    """Ids of the jobs that train a sweep."""
    logs, found = runs / "attention" / "workers", set()
    answer = cluster.call("squeue", "--noheader", "--array", f"--states={states}", "--format=%i %j")
    for id, name in map(str.split, answer.splitlines()):
        arrays, task = submitted_runs(logs, name), id.partition("_")[2]
        trained = arrays.get(int(task), []) if task else []
        found |= {id} if any(Path(run) != logs for run in trained[:1]) else set()
    return found


def assert_left(cluster: Cluster, runs: Path, driver: subprocess.Popen, jobs: set[str]) -> None:
    """The driver was told to leave, and nothing of these jobs remains."""
    assert driver.wait(60) == 130, said(runs)
    assert read_status(run_of(runs)).state is State.preempted
    assert jobs_of(cluster, runs) == set()
    for job in jobs:
        array, _, task = job.partition("_")
        marks = (f"SLURM_CONF={cluster.env['SLURM_CONF']}", f"SLURM_ARRAY_JOB_ID={array}")
        wait_for(lambda marks=(*marks, f"SLURM_ARRAY_TASK_ID={task}"): processes(*marks) == [], runs)


def assert_nothing_left(cluster: Cluster, runs: Path) -> None:
    """Of a sweep that was refused: no file, and no job, not even the one that asked a node."""
    assert [path.name for path in runs.iterdir()] == ["driver.txt"]
    name = job_name(runs / "attention" / "workers", PREFLIGHT_NAME)
    wait_for(lambda: name not in cluster.call("squeue", "--noheader", "--format=%j").split(), runs)


def wait_for_step(runs: Path, step: int, seconds: float = 120.0) -> None:
    wait_for(lambda: read_status(run_of(runs)).step >= step, runs, seconds)


def wait_for(condition, runs: Path, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, said(runs)
        time.sleep(0.02)


def said(runs: Path) -> str:
    return (runs / "driver.txt").read_text()
