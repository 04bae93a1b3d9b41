"""The engine of Slurm by a made-up Slurm; by a real one in tests/slurm."""

from __future__ import annotations

import dataclasses
import time

import pytest
from rich.console import Console

from harness.config.schema.engine import SlurmConfig
from harness.core.atomic_files import write_json
from harness.core.errors import UserError
from harness.launcher.engines.engine_api import WorkerSpec
from harness.launcher.engines.slurm.queue import SlurmJob
from harness.launcher.engines.slurm.script import WorkerCommand, array_script, submitted_runs
from harness.launcher.engines.slurm.slurm_engine import SlurmEngine, stop_jobs
from harness.launcher.sweep import launch
from harness.records.run.status import ProcessInfo, read_status
from tests.launcher.fake_slurm import Trusting, engine, first_run_dir, handed, named, order, tools
from tests.launcher.support import configs, wait_for

ELSEWHERE = ProcessInfo("another-host", 1, "boot:1")


def test_a_sweep_is_trained_by_jobs(slurm, tmp_path):
    made = configs(tmp_path, seeds=(0,), name="slurm")
    outcomes = launch(made, tools(slurm), Console(quiet=True))
    assert [outcome.state for outcome in outcomes] == ["finished", "finished"]
    assert slurm.count("sbatch") == 1, "a block is one job"


@pytest.mark.parametrize(
    ("state", "jobs", "words"), [("PREEMPTED", 2, ""), ("TIMEOUT", 1, "Slurm ended it at its time limit")]
)
def test_with_one_attempt_only_what_slurm_took_away_goes_on(slurm, tmp_path, monkeypatch, state, jobs, words):
    monkeypatch.setenv("FAKE_PACE", "0.02")
    real, ended = slurm._squeue, []

    def squeue(arguments):
        [*ids] = slurm.jobs
        if len(ids) == 1 and not ended and read_status(first_run_dir(tmp_path)).step > 6:
            slurm.end(ids[0], state)
            ended.append(ids[0])
        return real(arguments)

    monkeypatch.setattr(slurm, "_squeue", squeue)
    made = configs(tmp_path, variants=("mha",), seeds=(0,), name="slurm", attempts=1)
    [outcome] = launch(made, tools(slurm), Console(quiet=True))
    assert ended
    assert outcome.state == ("lost" if words else "finished")
    assert outcome.failure.startswith(words)
    assert bool(outcome.failure) == bool(words)
    assert slurm.count("sbatch") == jobs


def test_a_time_limit_that_leaves_no_time_is_not_tried_for_ever(slurm, tmp_path):
    """Each worker leaves at step 3, and saves nothing: the first one got there, the next two not further."""
    (tmp_path / "trial").mkdir()
    fault = {"at": 3, "do": "leave", "times": 99}
    write_json(tmp_path / "trial" / "faults.json", {"xs/mha/seed0": fault})
    made = configs(tmp_path, variants=("mha",), seeds=(0,), name="slurm", slurm=SlurmConfig(time_limit="9"))
    [outcome] = launch(made, tools(slurm), Console(quiet=True))
    assert outcome.state == "failed"
    assert outcome.failure.startswith("engine.slurm.time_limit=9: told to leave 2 times in a row before it")
    assert slurm.count("sbatch") == 3


def test_another_driver_finds_what_waits_in_the_queue(slurm, tmp_path):
    slurm.waits = True
    logs = tmp_path / "workers"
    first = handed(engine(slurm, logs), order(logs))
    second = engine(slurm, logs)
    assert second.submit(order(logs)).job == first.job
    assert second.adopt(ELSEWHERE, order(logs)).job == first.job
    assert second.submit(dataclasses.replace(order(logs), name="regrouped")).job == first.job
    assert slurm.count("sbatch") == 1
    assert submitted_runs(logs, "jobs-1") == {}, "a name of another's making"
    other = dataclasses.replace(order(logs), runs=(tmp_path / "other",))
    assert handed(second, other).job == "2_0"
    others = tmp_path / "sweep2" / "workers"
    assert handed(engine(slurm, others), order(others)).job == "3_0"


def test_a_pending_job_of_another_version_is_not_taken_over(slurm, tmp_path):
    slurm.waits = True
    logs = tmp_path / "workers"
    first = engine(slurm, logs)
    handed(first, *named(logs, "a", "b"))
    handed(first, order(logs, "c"))
    script = logs / "jobs-1.sh"
    lines = script.read_text().splitlines(keepends=True)
    script.write_text("".join(line for line in lines if not line.startswith("# harness code")))
    refused = (
        r"^job 1_0 \(and 1 more\) of this sweep .* another version .*`scancel --state=PENDING 1`, then give"
    )
    with pytest.raises(UserError, match=refused):
        engine(slurm, logs)
    slurm.end("1_0", "CANCELLED")
    slurm.jobs["1_1"].state = "RUNNING"
    second = engine(slurm, logs)
    jobs = [spec.job for spec in handed(second, *named(logs, "a", "b"))]
    assert jobs == ["3_0", "1_1"], "what runs goes on, also with other code"


def test_what_is_submitted_together_is_one_array(slurm, tmp_path):
    slurm.waits, slurm.most = True, 3
    logs = tmp_path / "workers"
    made = engine(slurm, logs)
    four = named(logs, "a", "b", "c", "d")
    wide = dataclasses.replace(order(logs, "wide"), devices=2)
    told = dataclasses.replace(order(logs, "told"), env={"A": "2"})
    handles = handed(made, *four, wide, told)
    assert [handle.job for handle in handles] == ["1_0", "1_1", "1_2", "2_0", "3_0", "4_0"]
    assert slurm.count("sbatch") == 4, "cut at MaxArraySize; what asks for other things stands apart"
    again = engine(slurm, logs)
    assert [again.submit(each).job for each in reversed(four)] == ["2_0", "1_2", "1_1", "1_0"]
    slurm.end("1_1", "CANCELLED")
    wait_for(lambda: made.poll(handles[1]))
    assert handed(made, four[1]).job == "5_0", "it is started again alone"
    assert made.poll(handles[0]) is None


def test_a_task_trains_and_speaks_for_itself(slurm, tmp_path):
    logs = tmp_path / "workers"
    made = Trusting(SlurmConfig(setup=["echo set up"]), logs, "this", slurm)
    logs.mkdir()
    (tmp_path / "this.py").write_text("import os, sys; print(sys.argv[1:], os.environ['A'])")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        handles = handed(made, *named(logs, "a b", "c%d"))
    for handle, name in zip(handles, ("a b", "c%d"), strict=True):
        wait_for(lambda handle=handle: made.poll(handle))
        assert handle.exit.code == 0
        assert handle.spec.log.read_text() == f"set up\n['{logs}/{name}'] b c\n"


def test_what_was_not_handed_in_yet_is_not(slurm, tmp_path):
    made = engine(slurm, tmp_path / "workers")
    handle, other = (made.submit(each) for each in named(tmp_path / "workers", "a", "b"))
    made.cancel(handle, hard=False)
    assert "not submitted to Slurm yet" in made.poll(handle).message
    assert other.job == "1_0"
    assert [*slurm.jobs] == ["1_0"]


def test_a_job_that_no_node_could_hold_is_given_up(slurm, tmp_path):
    slurm.waits, slurm.reason = True, "PartitionConfig"
    made = engine(slurm, tmp_path / "workers")
    handle = handed(made, order(tmp_path / "workers"))
    wait_for(lambda: made.poll(handle))
    assert "job 1_0 would wait forever (PartitionConfig)" in handle.exit.message
    made.close()
    assert slurm.jobs["1_0"].state == "CANCELLED"


@pytest.mark.parametrize(("state", "status"), [("OUT_OF_MEMORY", 0), ("FAILED", 9)])
def test_what_slurm_said_of_a_job_is_told_with_its_end(slurm, tmp_path, state, status):
    slurm.waits = True
    made = engine(slurm, tmp_path / "workers")
    handle, other = handed(made, *named(tmp_path / "workers", "a", "b"))
    said = [f"slurmstepd-n1: error: Detected 1 oom-kill event(s) in StepId={n}.batch." for n in (710, 711)]
    (tmp_path / "workers" / "jobs-1.slurm.log").write_text("\n".join(said))
    slurm.end(handle.job, state)
    slurm.jobs[handle.job].status = status
    slurm.end(other.job, "TIMEOUT")
    wait_for(lambda: made.poll(handle) and made.poll(other))
    assert (handle.exit.scheduler_message, other.exit.scheduler_message) == (said[0], ""), (
        "a time limit is explained"
    )


def test_what_slurm_said_without_a_name_is_of_the_one_job_of_its_script(slurm, tmp_path):
    slurm.waits = True
    made = engine(slurm, tmp_path / "workers")
    handle = handed(made, order(tmp_path / "workers"))
    (tmp_path / "workers" / "jobs-1.slurm.log").write_text(
        "slurmstepd-n1: error: execve(): Permission denied\n"
    )
    slurm.end(handle.job, "FAILED")
    slurm.jobs[handle.job].status = 1 << 8
    wait_for(lambda: made.poll(handle))
    assert "Permission denied" in handle.exit.scheduler_message
    assert "status 1 (job 1_0 on n1, FAILED)" in handle.exit.message


def test_a_probe_that_a_killed_driver_left_counts_for_nothing(slurm, tmp_path):
    slurm.waits = True
    logs = tmp_path / "workers"
    first = engine(slurm, logs)
    asked = first._submit_now(WorkerSpec("probe", (), {}, logs / "probe.log"), ["module", str(logs), "token"])
    second = engine(slurm, logs)
    assert second._earlier_jobs == {}, "else no node would be asked"
    second.close()
    assert slurm.jobs[asked.job].state == "CANCELLED"


def test_a_probe_that_no_node_could_hold_leaves_no_job_and_no_file(slurm, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: name)
    slurm.waits, slurm.reason = True, "PartitionConfig"
    made = SlurmEngine(SlurmConfig(), tmp_path / "workers", "tests.launcher.fake_worker", slurm)
    with pytest.raises(UserError, match=r"the test job .* did not run: job 1_0 would wait forever"):
        made.check([], [], print)
    assert slurm.jobs["1_0"].state == "CANCELLED"
    assert [*(tmp_path / "workers").iterdir()] == []


def test_a_job_that_ended_is_not_taken_for_one_that_lives(slurm, tmp_path):
    slurm.waits = True
    logs = tmp_path / "workers"
    first = handed(engine(slurm, logs), order(logs))
    slurm.end(first.job, "CANCELLED")
    second = engine(slurm, logs)
    gone = second.adopt(ELSEWHERE, order(logs))
    assert "another-host" in second.poll(gone).message
    again = handed(second, order(logs))
    assert again.job != first.job
    third = engine(slurm, logs)
    assert third.submit(order(logs)).job == again.job
    slurm.end(again.job, "CANCELLED")
    time.sleep(0.1)
    assert handed(third, order(logs)).job == "3_0"


def test_to_leave_is_to_save_if_it_runs_and_to_go_if_it_waits(slurm, tmp_path):
    slurm.waits = True
    made = engine(slurm, tmp_path / "workers")
    handles = handed(made, *named(tmp_path / "workers", "a", "b", "c"))
    wait_for(lambda: "waits in the queue (Priority)" in made.waiting(handles[0]))
    for handle in handles:
        made.cancel(handle, hard=False)
        assert slurm.count("scancel") == 0
    made.close()
    assert slurm.count("scancel") == 2, "one command for all of them, whatever each does"
    for handle in handles:
        wait_for(lambda handle=handle: made.poll(handle))
        assert "cancelled" in handle.exit.message


def test_a_sweep_without_a_driver_is_stopped_by_its_jobs(slurm, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: name)
    slurm.waits = True
    logs, others = tmp_path / "workers", tmp_path / "sweep2" / "workers"
    made = engine(slurm, logs)
    ours = [handle.job for handle in handed(made, *named(logs, "a", "b"))]
    handed(engine(slurm, others), order(others))
    assert stop_jobs(logs, slurm) == 2
    assert [id for id, job in slurm.jobs.items() if job.state == "CANCELLED"] == ours
    assert stop_jobs(logs, slurm) == 0


def test_a_controller_that_does_not_answer_ends_nothing(slurm, tmp_path):
    slurm.waits = True
    made = engine(slurm, tmp_path / "workers")
    handle = handed(made, order(tmp_path / "workers"))
    wait_for(lambda: "Priority" in made.waiting(handle))
    slurm.down = True
    time.sleep(0.1)
    assert made.poll(handle) is None
    slurm.down = False
    slurm.jobs.clear()
    wait_for(lambda: made.poll(handle))
    assert "no longer knows job 1_0" in handle.exit.message


def test_one_question_serves_thousands_of_jobs(slurm, tmp_path, monkeypatch):
    monkeypatch.setattr("harness.launcher.engines.slurm.queue.REFRESH_SECONDS", 3600.0)
    slurm.waits = True
    made = engine(slurm, tmp_path / "workers")
    handles = handed(made, *named(tmp_path / "workers", *(f"s{number}" for number in range(200))))
    asked = slurm.count("squeue")
    for handle in handles:
        made.poll(handle)
        made.waiting(handle)
    assert slurm.count("squeue") - asked <= 1


@pytest.mark.parametrize(
    ("state", "status", "exit"),
    [
        ("PENDING", 0, None),
        ("RUNNING", 0, None),
        ("COMPLETING", 0, None),
        ("COMPLETED", 0, (0, False)),
        ("FAILED", 3 << 8, (3, False)),
        ("FAILED", 75 << 8, (75, False)),
        ("FAILED", 9, (-9, False)),
        ("TIMEOUT", 0, (None, False)),
        ("OUT_OF_MEMORY", 0, (None, False)),
        ("CANCELLED", 0, (None, False)),
        ("NODE_FAIL", 0, (None, True)),
        ("PREEMPTED", 0, (None, True)),
    ],
)
def test_what_a_state_means(state, status, exit):
    found = SlurmJob("1", state, status, "", "").exit
    assert (None if found is None else (found.code, found.preempted)) == exit


def test_the_script_asks_for_what_the_order_needs(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/some/where")
    asked = SlurmConfig(
        partition="main", time_limit="60", constraint="h100", cpus=2, gpus=1, setup=["module load x"]
    )
    made = order(tmp_path / "a b", devices=4)
    text = array_script(
        asked, tmp_path / "a b", "jobs-1", [WorkerCommand(made, ("harness.worker", "/a b/run"))]
    )
    lines = text.splitlines()
    assert lines[0] == "#!/bin/bash"
    assert "#SBATCH --cpus-per-task=8" in lines
    assert "#SBATCH --gpus-per-node=4" in lines
    assert "#SBATCH --signal=B:USR2@120" in lines
    assert f"#SBATCH '--output={tmp_path}/a b/jobs-1.slurm.log'" in lines
    assert f"0) log='{tmp_path}/a b/xs-seed0.log'; set -- '/a b/run' ;;" in lines
    assert lines.index("module load x") < lines.index("export A='b c'")
    assert lines[-1].startswith("exec ")
    assert lines[-1].endswith('-m harness.worker "$@"')
