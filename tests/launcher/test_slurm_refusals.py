"""What Slurm refuses, what is not here, and what is only asked; by a made-up Slurm."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from harness.config.schema.engine import EngineConfig, SlurmConfig
from harness.core.errors import UserError
from harness.launcher.engines.factory import make_engine
from harness.launcher.engines.slurm.queue import CommandFailed, check_installed, run_command
from harness.launcher.engines.slurm.slurm_engine import SlurmEngine
from harness.launcher.run_directories import RunAction, prepare, set_state
from harness.launcher.runs import Run, run_dir, sweep_dir
from harness.launcher.sweep import launch
from harness.records.run.status import ProcessInfo, State, Status, write_status
from tests.launcher.fake_slurm import first_run_dir, handed, order, tools
from tests.launcher.support import config, configs, facts

ELSEWHERE = ProcessInfo("another-host", 1, "boot:1")


def test_refusals_are_one_sentence(slurm, tmp_path):
    slurm.refuses = "invalid partition specified: mian; Batch job submission failed"
    made = SlurmEngine(SlurmConfig(partition="mian"), tmp_path, "tests.launcher.fake_worker", slurm)
    refused = handed(made, order(tmp_path)).exit
    assert refused.message == "engine.slurm.partition=mian: no such partition; did you mean 'main'?"
    slurm.refuses = "QOSMaxSubmitJobPerUserLimit"
    assert "engine=slurm: Slurm refuses the job (QOSMax" in handed(made, order(tmp_path)).exit.message
    slurm.refuses = "Invalid --time specification"
    timed = SlurmEngine(SlurmConfig(time_limit="8h"), tmp_path, "tests.launcher.fake_worker", slurm)
    assert handed(timed, order(tmp_path)).exit.message.startswith("engine.slurm.time_limit=8h: Slurm refuses")
    slurm.refuses = "Batch job submission failed: Invalid job array specification"
    assert "MaxArraySize=0" in handed(made, order(tmp_path)).exit.message


def test_no_slurm_here(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="sbatch is not found on this machine"):
        check_installed("sbatch")
    with pytest.raises(UserError, match=r"engine\.name=slrum: no such engine; did you mean 'slurm'"):
        make_engine(EngineConfig("slrum"), tmp_path)


def test_a_controller_that_is_away_and_one_that_has_jobs_already(slurm, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: name)
    probes = []
    monkeypatch.setattr(
        "harness.launcher.engines.slurm.slurm_engine.run_preflight", lambda *given: probes.append(given)
    )
    slurm.waits = slurm.down = True
    logs = tmp_path / "workers"
    with pytest.raises(UserError, match="the controller does not answer squeue"):
        SlurmEngine(SlurmConfig(), logs, "tests.launcher.fake_worker", slurm).check([], [], print)
    slurm.down = False
    first = SlurmEngine(SlurmConfig(), logs, "tests.launcher.fake_worker", slurm)
    first.check([], [], print)
    handed(first, order(logs))
    SlurmEngine(SlurmConfig(), logs, "tests.launcher.fake_worker", slurm).check([], [], print)
    assert len(probes) == 1, "the second driver finds a job, and asks no node again"


def test_the_words_of_a_command_that_fails(tmp_path, monkeypatch):
    (tmp_path / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: not today' >&2\nexit 1\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(CommandFailed, match=r"^not today$"):
        run_command(["sbatch"])
    with pytest.raises(CommandFailed, match="No such file"):
        run_command([str(tmp_path / "nothing")])


def test_what_another_host_left_is_not_waited_for(tmp_path):
    """Where nobody here can ask whether the process lives, its last word counts."""
    made = config(tmp_path)
    run = Run(made, facts(made), run_dir(sweep_dir([made]), made))
    prepare(sweep_dir([made]), run, print)
    for state, ready in (
        (State.running, RunAction.follow),
        (State.preempted, RunAction.train),
        (State.lost, RunAction.train),
    ):
        write_status(run.dir, Status(state, writer=ELSEWHERE))
        assert prepare(sweep_dir([made]), run, print) is ready
    write_status(run.dir, Status(State.running, writer=ELSEWHERE))
    set_state(run.dir, State.pending, "")
    assert prepare(sweep_dir([made]), run, print) is RunAction.train


def test_a_run_whose_host_is_gone_is_trained_again(slurm, tmp_path):
    made = configs(tmp_path, variants=("mha",), seeds=(0,), name="slurm")
    run = Run(made[0], facts(made[0]), first_run_dir(tmp_path))
    prepare(sweep_dir(made), run, print)
    write_status(run.dir, Status(State.running, step=3, writer=ELSEWHERE))
    [outcome] = launch(made, tools(slurm), Console(quiet=True))
    assert outcome.state == "finished"


def test_a_dry_run_prints_the_scripts_and_writes_nothing(slurm, tmp_path):
    made = configs(tmp_path, seeds=(0, 1), name="slurm", dry_run=True)
    console = Console(record=True, width=200, file=io.StringIO())
    launch(made, tools(slurm), console)
    printed = console.export_text()
    assert [line for line in printed.splitlines() if line.startswith("exec ")] != []
    assert printed.count("#SBATCH --job-name=ab-") == 1
    assert "#SBATCH --array=0-1" in printed
    assert {*map(tuple, slurm.calls)} <= {("scontrol", "show", "config")}, "it only asks"
    assert [*tmp_path.iterdir()] == []
