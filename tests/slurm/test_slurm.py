"""Sweeps by a real Slurm of two nodes: bitwise the local engine's, whatever ends a worker on the way."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from pathlib import Path

import pytest

from harness.records.run.status import State, read_status
from tests.slurm.support import (
    assert_left,
    assert_nothing_left,
    finished,
    jobs_of,
    run_of,
    said,
    sweep,
    wait_for,
    wait_for_step,
)

pytestmark = pytest.mark.slow  # make test-slurm


def time_up(cluster, runs: Path, *more: str):
    """A sweep whose one job may last a minute, on a node apart: the other tests run in that time."""
    options = ("engine.slurm.time_limit=1", "engine.slurm.partition=brief", *more)
    driver = sweep(runs, cluster.env, "engine=slurm", *options)
    wait_for_step(runs, 40)
    [job] = jobs_of(cluster, runs)
    return driver, job, read_status(run_of(runs)).writer.pid


@pytest.fixture(scope="module", autouse=True)
def limited(cluster, calm, tmp_path_factory):
    """A worker that stands still until Slurm's signal before the limit wakes it. After `calm`, which leaves
    compiled programs to all."""
    runs = tmp_path_factory.mktemp("limited")
    driver, job, worker = time_up(cluster, runs, "engine.attempts=1", "engine.slurm.save_seconds=5")
    os.kill(worker, signal.SIGSTOP)
    yield driver, runs, job
    with contextlib.suppress(ProcessLookupError):
        os.killpg(driver.pid, signal.SIGKILL)


@pytest.fixture(scope="module", autouse=True)
def cut(cluster, limited, tmp_path_factory):
    """A worker that is too slow to save: no sooner does a signal wake it than it stands still again."""
    runs, over = tmp_path_factory.mktemp("cut"), threading.Event()
    driver, job, worker = time_up(cluster, runs, "engine.attempts=2", "engine.slurm.save_seconds=0")

    def halt() -> None:
        with contextlib.suppress(ProcessLookupError):
            while not over.wait(0.01):
                os.kill(worker, signal.SIGSTOP)

    thread = threading.Thread(target=halt)
    thread.start()
    yield driver, runs, job
    over.set()
    thread.join()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(driver.pid, signal.SIGKILL)


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
    [job] = jobs_of(cluster, tmp_path)
    node = cluster.call("squeue", "--noheader", f"--jobs={job}", "--format=%N").strip()
    cluster.kill_node(node)
    assert read_status(run_of(tmp_path)).state is State.running
    try:
        finished(driver, tmp_path, calm)
    finally:
        cluster.start_node(node)
    assert jobs_of(cluster, tmp_path, "all") == {job}, "Slurm itself started it again"
    cluster.wait_until_idle()


def test_a_driver_that_was_killed_finds_its_job_again(cluster, calm, tmp_path):
    driver = sweep(tmp_path, cluster.env, "engine=slurm")
    wait_for_step(tmp_path, 40)
    before = jobs_of(cluster, tmp_path, "all")
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    finished(sweep(tmp_path, cluster.env, "engine=slurm"), tmp_path, calm)
    assert jobs_of(cluster, tmp_path, "all") == before, "no other job was submitted"


def test_leaving_saves_every_run_and_leaves_nothing_behind(cluster, tmp_path):
    driver = sweep(tmp_path, cluster.env, "engine=slurm")
    wait_for_step(tmp_path, 40)
    [job] = jobs_of(cluster, tmp_path)
    driver.send_signal(signal.SIGTERM)
    assert_left(cluster, tmp_path, driver, {job})


def test_a_run_whose_time_is_up_saves_and_goes_on_in_another_job(cluster, calm, limited):
    driver, runs, job = limited
    finished(driver, runs, calm)
    assert job in jobs_of(cluster, runs, "failed"), "its worker left by itself, unfinished"
    assert len(jobs_of(cluster, runs, "completed")) == 1


def test_a_run_that_was_cut_at_its_limit_goes_on_from_its_last_checkpoint(cluster, calm, cut):
    driver, runs, job = cut
    finished(driver, runs, calm)
    assert jobs_of(cluster, runs, "timeout") == {job}
    words = "xs/mha/seed0: Slurm ended it at its time limit (engine.slurm.time_limit)"
    assert f"{words}: job {job}; it is started again" in said(runs), "one of two attempts is used up"


def test_a_job_that_slurm_gives_its_place_to_costs_nothing_but_time(cluster, calm, tmp_path):
    driver = sweep(tmp_path, cluster.env, "engine=slurm", "engine.attempts=1")
    wait_for_step(tmp_path, 40)
    [job] = jobs_of(cluster, tmp_path)
    node = cluster.call("squeue", "--noheader", f"--jobs={job}", "--format=%N").strip()
    place = ("--partition=urgent", f"--nodelist={node}", "--exclusive", "--output=/dev/null")
    cluster.call("sbatch", *place, "--wrap=sleep 1")
    finished(driver, tmp_path, calm)
    assert jobs_of(cluster, tmp_path, "all") == {job}, "Slurm itself started it again"
    assert "Restarts=1" in cluster.call("scontrol", "show", "job", job)
    assert "started again" not in said(tmp_path)


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("engine.slurm.partition=mian", "no such partition; did you mean 'main'?"),
        ("engine.slurm.constraint=gold", "engine.slurm.constraint=gold: Slurm refuses the job"),
        ("engine.slurm.cpus=99", "the test job before the first worker did not run: job"),
    ],
)
def test_what_slurm_will_not_take_is_said_before_anything_starts(cluster, tmp_path, option, sentence):
    driver = sweep(tmp_path, cluster.env, "engine=slurm", option)
    assert driver.wait(60) == 2
    assert sentence in said(tmp_path)
    assert "Traceback" not in said(tmp_path)
    assert_nothing_left(cluster, tmp_path)
