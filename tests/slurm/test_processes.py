"""Runs of several processes by a real Slurm: bitwise those that the local engine starts."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from harness.records.run.status import State, read_status
from tests.slurm.support import (
    TOGETHER,
    assert_left,
    finished,
    jobs_of,
    run_of,
    said,
    sweep,
    wait_for,
    wait_for_step,
)

pytestmark = pytest.mark.slow  # make test-slurm
APART = 'engine.slurm.extra=["--ntasks-per-node=1"]'


def test_two_runs_of_two_processes_train_at_once_in_one_allocation(cluster, calm_together, tmp_path):
    options = ("engine=slurm", "engine.slurm.submit=steps", *TOGETHER)
    allocation = ("salloc", "--quiet", "--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=2")
    driver = sweep(tmp_path, cluster.env, *options, before=allocation)

    def both() -> bool:
        statuses = [read_status(run_of(tmp_path, variant)) for variant in ("mha", "short")]
        return all(status.state is State.running and status.step > 0 for status in statuses)

    wait_for(both, tmp_path, 120)
    finished(driver, tmp_path, calm_together)
    logs = {file.name for file in (tmp_path / "attention" / "workers").glob("xs-*.log")}
    assert logs == {f"xs-{variant}-seed0{more}.log" for variant in ("mha", "short") for more in ("", ".1")}


def nodes_of(cluster, jobs: set[str]) -> set[str]:
    return {cluster.call("squeue", "--noheader", f"--jobs={job}", "--format=%N").strip() for job in jobs}


def test_processes_on_two_nodes_of_which_one_dies(cluster, calm_together, tmp_path):
    driver = sweep(tmp_path, cluster.env, "engine=slurm", "engine.attempts=1", APART, *TOGETHER)
    wait_for_step(tmp_path, 40)
    jobs = jobs_of(cluster, tmp_path)
    assert nodes_of(cluster, jobs) == {"n[1-2]"}
    cluster.kill_node("n2")  # of the processes that only follow
    try:
        wait_for(lambda: jobs_of(cluster, tmp_path, "pending") == jobs, tmp_path)
    finally:
        cluster.start_node("n2")
    finished(driver, tmp_path, calm_together)
    assert jobs_of(cluster, tmp_path, "all") == jobs, "Slurm itself started them again"
    assert "started again" not in said(tmp_path)
    cluster.wait_until_idle()


def test_several_processes_save_together_and_leave_nothing_behind(cluster, tmp_path: Path):
    driver = sweep(tmp_path, cluster.env, "engine=slurm", APART, *TOGETHER)
    wait_for_step(tmp_path, 40)
    jobs = jobs_of(cluster, tmp_path)
    driver.send_signal(signal.SIGTERM)
    assert_left(cluster, tmp_path, driver, jobs)
    assert len(jobs) == 2
