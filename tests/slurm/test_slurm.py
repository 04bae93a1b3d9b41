"""Sweeps by a real Slurm of two nodes: bitwise the local engine's, whatever ends a worker on the way."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from harness.records.layout import SweepDir
from harness.records.status import State, read_status
from tests.fleet.soak.whole import assert_as
from tests.slurm.support import run_of, said, sweep, wait_for, wait_for_step

pytestmark = pytest.mark.slow  # make test-slurm


def finished(driver, runs: Path, calm: SweepDir) -> None:
    assert driver.wait(180) == 0, said(runs)
    assert_as(calm, SweepDir(runs / "attention"))


def worker_jobs(cluster, *, ended: bool = False) -> list[str]:
    """Ids of the jobs that are no probes."""
    states = ["--states=all"] if ended else []
    lines = cluster.call("squeue", "--noheader", *states, "--format=%i %j").splitlines()
    return [line.split()[0] for line in lines if line.endswith("-xs-seed0")]


def node_of(cluster, job: str) -> str:
    return cluster.call("squeue", "--noheader", f"--jobs={job}", "--format=%N").strip()


def test_a_paired_sweep_is_that_of_the_local_engine(cluster, calm, tmp_path):
    finished(sweep(tmp_path, cluster.env, "engine=slurm"), tmp_path, calm)


def test_a_whole_fleet_runs_as_steps_of_one_allocation(cluster, calm, tmp_path):
    options = ("engine=slurm", "engine.slurm.submit=steps", "engine.isolation=run")
    allocation = ("salloc", "--quiet", "--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1")
    driver, seen = sweep(tmp_path, cluster.env, *options, before=allocation), set()

    def both() -> bool:
        lines = cluster.call("squeue", "--steps", "--noheader", "--format=%i %j %N").splitlines()
        steps = [line.split() for line in lines if line.split()[1].startswith("ab-")]
        seen.update(step[1][14:] for step in steps)
        return len({step[2] for step in steps}) == 2

    wait_for(both, tmp_path)
    finished(driver, tmp_path, calm)
    assert seen >= {"xs-mha-seed0", "xs-short-seed0"}


def test_a_node_that_dies_costs_nothing_but_time(cluster, calm, tmp_path):
    driver = sweep(tmp_path, cluster.env, "engine=slurm", "engine.attempts=1")
    wait_for_step(tmp_path, 40)
    [job] = worker_jobs(cluster)
    node = node_of(cluster, job)
    cluster.kill_node(node)
    assert read_status(run_of(tmp_path)).state is State.running
    try:
        finished(driver, tmp_path, calm)
    finally:
        cluster.start_node(node)
    assert job in worker_jobs(cluster, ended=True), "Slurm itself started it again"
    cluster.wait_until_idle()


def test_a_worker_that_is_told_to_save_goes_on_in_another_job(cluster, calm, tmp_path):
    """The signal that `--signal=B:TERM@...` sends before the time limit."""
    driver = sweep(tmp_path, cluster.env, "engine=slurm", "engine.attempts=1")
    wait_for_step(tmp_path, 40)
    [job] = worker_jobs(cluster)
    cluster.call("scancel", "--signal=TERM", "--batch", job)
    finished(driver, tmp_path, calm)
    assert len({*worker_jobs(cluster, ended=True)} - {job}) > 0


def test_a_driver_that_was_killed_finds_its_job_again(cluster, calm, tmp_path):
    driver = sweep(tmp_path, cluster.env, "engine=slurm")
    wait_for_step(tmp_path, 40)
    before = worker_jobs(cluster, ended=True)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    finished(sweep(tmp_path, cluster.env, "engine=slurm"), tmp_path, calm)
    assert worker_jobs(cluster, ended=True) == before, "no other job was submitted"


def test_leaving_saves_every_run_and_leaves_nothing_behind(cluster, calm, tmp_path):
    driver = sweep(tmp_path, cluster.env, "engine=slurm")
    wait_for_step(tmp_path, 40)
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(60) == 130, said(tmp_path)
    assert read_status(run_of(tmp_path)).state is State.preempted
    assert worker_jobs(cluster) == []
    wait_for(lambda: cluster.processes() == [], tmp_path)
    finished(sweep(tmp_path, cluster.env, "engine=slurm"), tmp_path, calm)


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("engine.slurm.partition=mian", "no such partition; did you mean 'main'?"),
        ("engine.slurm.constraint=gold", "Slurm refuses the job"),
    ],
)
def test_what_slurm_will_not_take_is_said_before_anything_starts(cluster, tmp_path, option, sentence):
    driver = sweep(tmp_path, cluster.env, "engine=slurm", option)
    assert driver.wait(60) == 2
    assert sentence in said(tmp_path)
    assert "Traceback" not in said(tmp_path)
    assert worker_jobs(cluster) == []
