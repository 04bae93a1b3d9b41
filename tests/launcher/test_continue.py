"""The same command continues what is unfinished, whatever ended it; and repeats nothing."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console

from harness.core import atomic_files
from harness.core.errors import UserError
from harness.launcher import run_directories
from harness.launcher.engines.engine_api import ALREADY_RUNNING, WorkerSpec
from harness.launcher.run_directories import set_state
from harness.launcher.runs import Run, run_dir, sweep_dir
from harness.records.paths import RunDir, SweepDir
from harness.records.run import metrics
from harness.records.run.run_lock import worker_of
from harness.records.run.status import State, Status, read_status, write_status
from harness.records.sweep import ledger
from tests.launcher.fake_worker import row
from tests.launcher.support import STEPS, configs, drive, facts, lasting_engine, train, wait_for


def faults(runs: Path, **by_run: dict) -> None:
    """`mha0={...}` is a fault of xs/mha/seed0."""
    content = {f"xs/{name[:-1]}/seed{name[-1]}": fault for name, fault in by_run.items()}
    atomic_files.write_json(runs / "trial" / "faults.json", content)


def states(runs: Path) -> dict[str, str]:
    sweep = SweepDir(runs / "trial")
    return {f"{r.path.parent.name}{r.path.name[-1]}": read_status(r).state.value for r in sweep.runs()}


def attempts(runs: Path, variant: str, seed: int) -> int:
    path = runs / "trial" / "xs" / variant / f"seed{seed}" / "attempts.txt"
    return len(path.read_text().split())


def assert_whole(runs: Path) -> None:
    """Every run finished, with the curve of a run that nothing disturbed."""
    found = states(runs)
    assert found
    assert {*found.values()} == {"finished"}, found
    for run in SweepDir(runs / "trial").runs():
        variant, seed = run.path.parent.name, int(run.path.name[4:])
        wanted = [row(seed, variant, step) for step in range(1, STEPS + 1)]
        assert metrics.read_curve(run, "steps").equals(pl.DataFrame(wanted, schema=metrics.STEPS))
    assert ledger.edited_positions(SweepDir(runs / "trial")) == []


def test_finished_runs_are_not_trained_again(tmp_path):
    train(configs(tmp_path))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    output = io.StringIO()
    outcomes = train(configs(tmp_path), Console(file=output))
    assert output.getvalue().startswith(f"{tmp_path / 'trial'}: all 4 runs were finished before")
    assert [outcome.state for outcome in outcomes] == ["finished"] * 4
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert {path for path in after if before.get(path) != after[path]} <= {tmp_path / "trial" / "driver.lock"}


def test_outcomes_come_in_the_order_of_the_configs(tmp_path):
    made = configs(tmp_path, variants=("mha", "short"), seeds=(1, 0))
    assert [o.run for o in train(made)] == [f"xs/{config.variant.name}/seed{config.seed}" for config in made]


def test_an_exception_in_a_lane_is_retried_and_leaves_its_sibling_alone(tmp_path):
    faults(tmp_path, short0={"at": 7, "do": "raise"})
    train(configs(tmp_path))
    assert_whole(tmp_path)
    assert attempts(tmp_path, "short", 0) == 2
    assert attempts(tmp_path, "mha", 0) == 1


@pytest.mark.parametrize("do", ["kill", "exit"])
def test_a_crashed_worker_takes_only_its_block_which_is_restarted(tmp_path, do):
    faults(tmp_path, short0={"at": 7, "do": do})
    train(configs(tmp_path))
    assert_whole(tmp_path)
    assert attempts(tmp_path, "mha", 1) == 1


def test_a_run_that_never_gets_further_is_given_up_after_so_many_attempts(tmp_path):
    faults(tmp_path, short0={"at": 7, "do": "raise", "times": 99})
    outcomes = train(configs(tmp_path, attempts=2))
    assert states(tmp_path) == {
        "mha0": "finished",
        "mha1": "finished",
        "short0": "failed",
        "short1": "finished",
    }
    assert [o.failure for o in outcomes if o.failure] == ["a fault on demand"]
    assert attempts(tmp_path, "short", 0) == 2


@pytest.mark.parametrize(("times", "made"), [(2, 3), (99, 3)])
def test_a_run_that_leaves_again_and_again_without_a_step_is_given_up(tmp_path, times, made):
    """The first worker gets to step 3, the next ones no further."""
    faults(tmp_path, mha0={"at": 3, "do": "leave", "times": times})
    [outcome] = train(configs(tmp_path, variants=("mha",), seeds=(0,), attempts=1))
    assert attempts(tmp_path, "mha", 0) == made
    if times == 2:
        assert_whole(tmp_path)
    else:
        assert outcome.failure.startswith("engine.name=local: told to leave 2 times in a row")


def test_a_diverged_run_is_an_outcome(tmp_path):
    faults(tmp_path, short0={"at": 7, "do": "diverge", "times": 99})
    outcomes = train(configs(tmp_path))
    assert not any(outcome.failure for outcome in outcomes)
    train(configs(tmp_path))
    assert attempts(tmp_path, "short", 0) == 1


def test_a_run_without_progress_is_ended_and_restarted(tmp_path):
    faults(tmp_path, short0={"at": 7, "do": "hang"})
    train(configs(tmp_path, stall_seconds=1.5))
    assert_whole(tmp_path)
    assert attempts(tmp_path, "short", 0) == 2


def test_a_worker_that_hangs_before_its_first_word_is_ended_and_restarted(tmp_path):
    """Its runs still say what an earlier attempt left."""
    faults(tmp_path, short0={"at": 2, "do": "raise", "times": 1})
    train(configs(tmp_path, seeds=(0,), attempts=1))
    faults(tmp_path, short0={"at": 0, "do": "hang", "times": 2})
    train(configs(tmp_path, seeds=(0,), stall_seconds=1.5))
    assert_whole(tmp_path)
    assert attempts(tmp_path, "short", 0) == 2


def test_stop_block_spares_other_blocks(tmp_path):
    faults(tmp_path, short0={"at": 2, "do": "raise", "times": 99})
    made = configs(tmp_path, on_failure="stop_block", attempts=1, isolation="run", workers=4)
    train(made)
    found = states(tmp_path)
    assert (found["short0"], found["short1"], found["mha1"]) == ("failed", "finished", "finished")


def test_stop_all_starts_nothing_more(tmp_path):
    faults(tmp_path, mha0={"at": 2, "do": "raise", "times": 99})
    made = configs(tmp_path, seeds=(0, 1, 2), on_failure="stop_all", attempts=1, workers=1)
    assert all(outcome.failure for outcome in train(made) if "short" not in outcome.run)
    assert {state for name, state in states(tmp_path).items() if name[-1] in "12"} == {"pending"}


def test_one_worker_a_run_writes_the_same(tmp_path):
    train(configs(tmp_path, isolation="run"))
    assert_whole(tmp_path)


def test_a_killed_driver_leaves_its_workers_which_the_next_one_adopts(tmp_path):
    driver = drive(tmp_path, stall_seconds=30)
    runs = [SweepDir(tmp_path / "trial").run("xs", "mha", seed) for seed in (0, 1)]
    wait_for(lambda: all(worker_of(run) for run in runs))
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    assert all(worker_of(run) for run in runs), "the workers ended with their driver"
    train(configs(tmp_path))
    assert_whole(tmp_path)
    assert attempts(tmp_path, "mha", 0) == 1, "an adopted run was started a second time"


def test_a_run_that_is_held_is_not_entered_by_a_second_worker(tmp_path):
    """As when a driver is killed after it asked for a worker and before the worker said a word."""
    made = configs(tmp_path, seeds=(0,))
    runs = [run_dir(sweep_dir(made), each).path for each in made]
    train(made)
    engine = lasting_engine()
    for path in runs:
        set_state(RunDir(path), State.pending, "")
        shutil.rmtree(path / "metrics")
    orders = [WorkerSpec("twice", tuple(runs), {"FAKE_PACE": "0.15"}, tmp_path / "log") for _ in range(2)]
    handles: list[Any] = [engine.submit(order) for order in orders]
    wait_for(lambda: all(engine.poll(handle) for handle in handles))
    assert {handle.exit.code for handle in handles if handle.exit} == {0, ALREADY_RUNNING}
    assert_whole(tmp_path)


def test_termination_lets_every_run_save_and_the_same_command_continues(tmp_path):
    driver = drive(tmp_path)
    run = SweepDir(tmp_path / "trial").run("xs", "short", 0)
    wait_for(lambda: read_status(run).step >= 2)
    os.kill(driver.pid, signal.SIGINT)
    text, _ = driver.communicate(timeout=30)
    assert "Interrupted" in text
    assert read_status(run).state in (State.preempted, State.finished)
    assert worker_of(run) is None
    train(configs(tmp_path))
    assert_whole(tmp_path)


def test_a_driver_whose_reader_leaves_lets_every_run_save(tmp_path):
    driver = drive(tmp_path, pace=0.1)
    runs = [run_dir(sweep_dir([config]), config) for config in configs(tmp_path)]
    wait_for(lambda: read_status(runs[0]).step >= 2)
    assert driver.stdout
    driver.stdout.close()
    assert driver.wait(timeout=30) != 0
    assert [worker_of(run) for run in runs] == [None] * len(runs)
    assert {read_status(run).state for run in runs} <= {State.preempted, State.finished, State.pending}
    train(configs(tmp_path))
    assert_whole(tmp_path)


def test_a_second_driver_is_told_who_is_there(tmp_path):
    driver = drive(tmp_path, pace=0.12)
    wait_for(lambda: read_status(SweepDir(tmp_path / "trial").run("xs", "mha", 0)).step > 0)
    with pytest.raises(UserError, match=f"process {driver.pid}"):
        train(configs(tmp_path))
    driver.communicate(timeout=60)
    assert_whole(tmp_path)


def test_kills_at_random_moments_lose_nothing(tmp_path):
    """Drivers and workers, -9, from before the first directory on; one command over and over."""
    chance = random.Random(20)
    for _ in range(5):
        driver = drive(tmp_path, pace=0.05, seeds=[0, 1, 2])
        time.sleep(chance.uniform(0.3, 2.5))
        victims = [driver.pid] if chance.random() < 0.6 else _workers(tmp_path) or [driver.pid]
        for pid in victims:
            _kill(pid)
        if driver.pid not in victims:
            time.sleep(0.2)
            _kill(driver.pid)
        driver.wait()
    driver = drive(tmp_path, seeds=[0, 1, 2])
    text, _ = driver.communicate(timeout=60)
    assert json.loads(text.strip().splitlines()[-1]) == ["finished"] * 6
    assert_whole(tmp_path)


def _workers(runs: Path) -> list[int]:
    found = [worker_of(RunDir(path.parent)) for path in runs.glob("trial/*/*/seed*/run.json")]
    return [*{writer.pid for writer in found if writer is not None and writer.pid}][:1]


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_a_run_that_starts_over_keeps_what_its_lane_did(tmp_path):
    made = configs(tmp_path, variants=("mha",), seeds=(0,))
    run = Run(made[0], facts(made[0]), run_dir(sweep_dir(made), made[0]))
    run.dir.path.mkdir(parents=True)
    run.dir.timeline.write_text("{}\n")
    write_status(run.dir, Status(step=5))
    run_directories.start_over(sweep_dir(made), run, "because")
    assert run.dir.timeline.read_text() == "{}\n"
    assert read_status(run.dir).step == 0
