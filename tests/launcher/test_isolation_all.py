"""One worker for a whole sweep: what holds of many workers holds of it, and it leaves nobody behind.

What is slow here runs under `make test-full`.
"""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path

import pytest
from rich.console import Console

from harness.config.schema.cluster import MeshConfig
from harness.config.schema.engine import Isolation, Schedule
from harness.core.errors import UserError
from harness.launcher.runs import Run, make_blocks, run_dir, sweep_dir
from harness.launcher.workers.retries import RetryPolicy, Watchdog
from harness.launcher.workers.supervisor import Assignment, Supervisor
from harness.launcher.workers.worker_specs import assign_runs
from harness.records.paths import RunDir, SweepDir
from harness.records.run.run_lock import worker_of
from harness.records.run.status import State, Status, read_status, write_status
from harness.report.frames.sweep_progress import ProgressReader
from tests.launcher.support import configs, drive, facts, lasting_engine, train, wait_for
from tests.launcher.test_continue import assert_whole, attempts, faults, states


def workers(runs: Path) -> set[str]:
    """Process ids that trained anything."""
    lines = [line for path in runs.glob("trial/*/*/seed*/attempts.txt") for line in path.read_text().split()]
    return {line.partition(":")[0] for line in lines}


def test_one_process_trains_the_sweep_and_restarts_in_place(tmp_path):
    faults(
        tmp_path, short0={"at": 7, "do": "raise", "times": 2}, mha1={"at": 3, "do": "diverge", "times": 99}
    )
    outcomes = train(configs(tmp_path, seeds=(0, 1, 2), isolation="all", workers=2))
    assert states(tmp_path)["mha1"] == "diverged"
    assert not any(outcome.failure for outcome in outcomes)
    assert attempts(tmp_path, "short", 0) == 3
    assert len(workers(tmp_path)) == 1


def test_what_never_gets_further_is_given_up_and_the_rest_finishes(tmp_path):
    faults(tmp_path, short0={"at": 7, "do": "raise", "times": 99})
    outcomes = train(configs(tmp_path, seeds=(0, 1, 2), isolation="all", attempts=2))
    assert [outcome.failure for outcome in outcomes if outcome.failure] == ["a fault on demand"]
    assert (attempts(tmp_path, "short", 0), len(workers(tmp_path))) == (2, 1)
    faults(tmp_path)
    train(configs(tmp_path, seeds=(0, 1, 2), isolation="all"))
    assert_whole(tmp_path)


@pytest.mark.slow
def test_a_run_that_takes_the_process_down_is_given_up_and_takes_no_other_along(tmp_path):
    faults(tmp_path, short0={"at": 2, "do": "kill", "times": 99})
    made = configs(tmp_path, seeds=(0, 1, 2), isolation="all", workers=2)
    outcomes = train(made)
    assert {name for name, state in states(tmp_path).items() if state != "finished"} == {"short0"}
    assert [outcome.run for outcome in outcomes if outcome.failure] == ["xs/short/seed0"]
    assert attempts(tmp_path, "short", 0) == 3


@pytest.mark.slow
def test_a_hung_lane_costs_the_process_but_no_run(tmp_path):
    faults(tmp_path, short0={"at": 7, "do": "hang"})
    train(configs(tmp_path, isolation="all", stall_seconds=1.5))
    assert_whole(tmp_path)
    assert len(workers(tmp_path)) == 2


@pytest.mark.parametrize("policy", ["stop_block", "stop_all"])
def test_what_a_failure_ends_inside_the_process(tmp_path, policy):
    faults(tmp_path, short0={"at": 2, "do": "raise", "times": 99})
    train(configs(tmp_path, seeds=(0, 1), isolation="all", on_failure=policy, attempts=1, devices=2))
    left = states(tmp_path)
    assert (left["short0"], left["mha0"]) == ("failed", "preempted")
    assert {left["mha1"], left["short1"]} == {"finished" if policy == "stop_block" else "preempted"}


def test_a_new_driver_adopts_it_and_watch_tells_who_waits(tmp_path):
    driver = drive(tmp_path, pace=0.06, isolation="all", devices=2, seeds=[0, 1])
    sweep = SweepDir(tmp_path / "trial")
    first, last = (sweep.run("xs", "mha", seed) for seed in (0, 1))
    wait_for(lambda: read_status(first).step > 0 and worker_of(last) is not None)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    fleet = ProgressReader(sweep).read(0.0)
    assert [run.name for run in fleet.running] == ["xs/mha/seed0", "xs/short/seed0"]
    assert [run.name for run in fleet.queue] == ["xs/mha/seed1", "xs/short/seed1"]
    assert not fleet.is_over
    train(configs(tmp_path, isolation="all", devices=2))
    assert_whole(tmp_path)
    assert len(workers(tmp_path)) == 1


@pytest.mark.slow
def test_told_to_leave_all_save_and_the_same_command_continues(tmp_path):
    driver = drive(tmp_path, pace=0.05, isolation="all", workers=1)
    sweep = SweepDir(tmp_path / "trial")
    wait_for(lambda: read_status(sweep.run("xs", "short", 0)).step >= 2)
    os.kill(driver.pid, signal.SIGTERM)
    driver.communicate(timeout=30)
    assert {*states(tmp_path).values()} == {"preempted"}
    train(configs(tmp_path, isolation="all"))
    assert_whole(tmp_path)


def blocks_of(made):
    return make_blocks([Run(each, facts(each), run_dir(sweep_dir(made), each)) for each in made])


def test_the_pool_is_what_was_asked_for_or_holds_as_many_blocks_as_workers(tmp_path):
    made = configs(tmp_path, scales=("xs", "s"), seeds=(0,), isolation="all")
    for each in made:
        each.mesh = MeshConfig(data=4 if each.scale.name == "s" else 1)
        each.cluster.platform = "none"  # not simulated here
    settings, blocks = made[0].engine, blocks_of(made)
    (every,) = assign_runs(blocks, settings, 1)
    assert ([run.name for run in every.runs], every.devices) == (
        ["xs/mha/seed0", "xs/short/seed0", "s/mha/seed0", "s/short/seed0"],
        8,
    )
    assert assign_runs(blocks, settings, 2)[0].devices == 10
    settings.devices = 16
    assert assign_runs(blocks, settings, 1)[0].devices == 16
    settings.devices = 4  # what a larger machine began goes on alone
    assert assign_runs(blocks, settings, 1)[0].devices == 8
    settings.isolation = Isolation.block
    assert [each.devices for each in assign_runs(blocks, settings, 1)] == [2, 8]


def test_all_at_once_is_refused_where_the_devices_do_not_hold_it(tmp_path):
    made = configs(tmp_path, isolation="all", devices=3)
    for each in made:
        each.engine.schedule = Schedule.static
    with pytest.raises(UserError, match="at once need 4 devices or more, but there are 3"):
        train(made)


def test_runs_that_wait_for_devices_are_not_silent(tmp_path):
    one, late = RunDir(tmp_path / "one"), RunDir(tmp_path / "late")
    dog = Watchdog(0.0)
    for second in range(1, 60):
        dog.update([(one, Status(State.running, progress=second)), (late, Status())], float(second))
    assert dog.silent_seconds() == 0.0
    for second in range(60, 70):
        dog.update([(one, Status(State.running, progress=60)), (late, Status())], float(second))
    assert dog.silent_seconds() == pytest.approx(9.0)
    for second in range(70, 75):  # nobody is at work: a process that hangs before it begins
        dog.update([(one, Status(State.finished)), (late, Status())], float(second))
    assert dog.silent_seconds() == pytest.approx(5.0)


def test_attempts_in_the_lane_and_losses_of_the_process_are_counted_together(tmp_path):
    run = blocks_of(configs(tmp_path))[0].runs[0]
    tries, counted = RetryPolicy(run.config.engine), []
    run.dir.path.mkdir(parents=True)
    for before, now, step in ((4, 6, 7), (6, 7, 7), (7, 9, 9)):
        write_status(run.dir, Status(attempt=before))
        tries.begin([run])
        tries.should_retry(run, Status(State.lost, step=step, attempt=now))
        counted.append(tries.failure_count(run))
    assert counted == [2, 3, 1]
    supervisor = Supervisor(lasting_engine(), run.config.engine, None, 1, None, None)  # type: ignore[arg-type]
    supervisor._requeue_runs(Assignment("x", [run], 1), [run], {run.name: 2})
    assert supervisor.waiting[0].failures == 2


def test_a_refused_run_is_asked_again_by_the_next_command_alone(tmp_path):
    faults(tmp_path, short0={"at": 4, "do": "refuse"})
    made = configs(tmp_path, isolation="all")
    outcomes = train(made)
    assert [outcome.failure for outcome in outcomes if outcome.failure] == ["too large"]
    assert attempts(tmp_path, "short", 0) == 1
    output = io.StringIO()
    console = Console(file=output, width=200)
    assert not any(outcome.failure for outcome in train(made, console))
    assert "refused at step" not in output.getvalue(), "the answer of before was taken for this one's"
    assert_whole(tmp_path)
    assert attempts(tmp_path, "short", 0) == 2
