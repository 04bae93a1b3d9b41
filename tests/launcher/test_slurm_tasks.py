"""Several tasks a worker, and workers as steps, by a made-up Slurm."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import pytest

from harness.config.schema.engine import EngineConfig, SlurmConfig, Submit
from harness.core.errors import UserError
from harness.launcher.engines.engine_api import ALREADY_RUNNING
from harness.launcher.engines.factory import make_engine
from harness.launcher.engines.slurm.script import job_name
from harness.launcher.engines.slurm.steps_engine import StepsEngine
from harness.records.paths import RunDir
from tests.launcher.fake_slurm import Trusting, engine, handed, order
from tests.launcher.support import wait_for

SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do echo "$1" >> {folder}/asked; shift; done
for SLURM_PROCID in 0 1; do SLURM_PROCID=$SLURM_PROCID SLURM_STEP_ID=0 "$@" & done
wait
"""
SAYS = """
from harness.config.process_group import from_env
import os, sys
print(from_env(os.environ), sys.argv[1:], os.environ["A"])
"""


@pytest.fixture
def srun(tmp_path, monkeypatch):
    """Starts two tasks of whatever it is given, whose module is `this`."""
    (tmp_path / "srun").write_text(SRUN.format(folder=tmp_path))
    (tmp_path / "srun").chmod(0o755)
    (tmp_path / "this.py").write_text(SAYS)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    return lambda: (tmp_path / "asked").read_text().split()


def assert_each_knows_its_place(log, start: str) -> None:
    for index, file in enumerate((log, log.with_suffix(".1.log"))):
        said = file.read_text()
        assert f"ProcessGroup(count=2, launch_id='{start}'" in said
        assert f"index={index}) ['{log.parent.parent}/run'] b c" in said
        assert said.count("\n") == 1


def test_several_processes_of_a_job(slurm, tmp_path, srun, monkeypatch):
    """Two devices each, whatever log or folder is called; and another start where Slurm starts it again."""
    made, logs = Trusting(SlurmConfig(cpus=3, gpus=1), tmp_path / "a $b", "this", slurm), tmp_path / "a $b"
    made.check()
    logs.mkdir()
    together = order(logs, devices=4, processes=2)
    handle = handed(made, together)
    wait_for(lambda: made.poll(handle))
    assert handle.exit.code == 0
    assert_each_knows_its_place(together.log, "1_0.0.0")
    options = slurm.jobs["1_0"].options
    asked = ("ntasks", "2"), ("cpus-per-task", "6"), ("gpus-per-task", "2")
    assert asked == tuple((name, options[name]) for name, _ in asked)
    assert "nodes" not in options
    assert {f"--{name}={value}" for name, value in asked} | {"--kill-on-bad-exit=1"} <= {*srun()}
    for file in logs.glob("*.log"):
        file.unlink()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    slurm.begin("1_0")
    wait_for(lambda: slurm.jobs["1_0"].process.poll() == 0)
    assert_each_knows_its_place(together.log, "1_0.0.1")


def test_several_processes_of_a_step(tmp_path, srun, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_NNODES", "9")
    logs = tmp_path / "logs"
    logs.mkdir()
    made = StepsEngine(SlurmConfig(), logs, "this", lambda _: "")
    together = order(logs, devices=4, processes=2)
    step = made.submit(together)
    wait_for(lambda: made.poll(step))
    assert step.exit.code == 0
    assert_each_knows_its_place(together.log, "7.0.0")
    assert {"--exact", "--ntasks=2", "--cpus-per-task=2", "--nodes=1-2"} <= {*srun()}


def test_a_run_of_several_processes_that_is_in_other_hands_is_not_lost(slurm, tmp_path):
    """Slurm says how the last of them ended, which is not what process 0 said."""
    slurm.waits = True
    logs = tmp_path / "workers"
    made = engine(slurm, logs)
    run = RunDir(tmp_path / "run")
    alone, together = (order(logs, f"n{count}", devices=2, processes=count) for count in (1, 2))
    handles = handed(made, alone, together)
    with holding(run):
        for job in slurm.jobs:
            slurm.jobs[job].state, slurm.jobs[job].status = "FAILED", 137 << 8
        wait_for(lambda: made.poll(handles[0]) and made.poll(handles[1]))
    assert [handle.exit.code for handle in handles] == [137, ALREADY_RUNNING]


HOLD = """
import sys
from pathlib import Path
from harness.records.run.run_lock import acquire
print(acquire(Path(sys.argv[1])), flush=True)
input()
"""


@contextlib.contextmanager
def holding(run: RunDir):
    """Another process has the run."""
    command = [sys.executable, "-c", HOLD, str(run.worker_lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"True\n"
        yield
        other.communicate(b"\n")


def test_a_step_is_taken_over_once_and_told_by_its_number(tmp_path, monkeypatch):
    """Also where `squeue` lists for a while what ended."""
    (tmp_path / "srun").write_text('#!/bin/sh\nfor file; do :; done; exec bash "$file"\n')
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    asked, given = [], order(tmp_path)

    def call(arguments):
        asked.append(arguments)
        return f"7.2 {job_name(tmp_path, given.log.stem)}\n"

    made = StepsEngine(SlurmConfig(), tmp_path, "platform", call)
    left = made.submit(given)
    assert left.srun is None
    made.cancel(left, hard=False)
    assert asked[-1] == ["scancel", "--signal=USR2", "7.2"]
    again = made.submit(given)
    made.cancel(again, hard=False)
    assert len(asked) == 2, "what is listed may be the one before: it is asked again first"
    wait_for(lambda: made.poll(again))
    assert again.exit.code == 0
    assert given.log.read_text() != ""


def test_steps_need_an_allocation(tmp_path, monkeypatch):
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    made = make_engine(EngineConfig("slurm", SlurmConfig(Submit.steps)), tmp_path)
    with pytest.raises(UserError, match="no allocation here"):
        made.check([], [], print)


@pytest.mark.parametrize(
    ("given", "count", "fits"),
    [("4(x2)", 2, True), ("4(x2)", 4, True), ("4(x2),2", 5, True), ("3(x2)", 4, False), ("2,1", 2, False)],
)
def test_an_allocation_that_is_too_small_is_told_of_first(monkeypatch, tmp_path, given, count, fits):
    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr("harness.launcher.engines.slurm.steps_engine.run_preflight", lambda *_: None)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_CPUS_PER_NODE", given)
    made = StepsEngine(SlurmConfig(), tmp_path, call=lambda _: "")
    asked = [order(tmp_path, devices=2 * count, processes=count)]
    if fits:
        made.check(asked, [], print)
        return
    with pytest.raises(UserError, match=f"needs {count} tasks of 2 CPUs, but the allocation has"):
        made.check(asked, [], print)
