"""One run over several processes: the same curve, one record of it, and no end without a sentence."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest

from harness.records.paths import RunDir
from harness.records.run.checkpoint_manifest import valid_steps
from harness.records.run.metrics import read_curve
from harness.records.run.provenance import read_provenance
from harness.records.run.status import State, read_status
from tests.training.processes import ended, start, start_alone, step_of, train, wait_for
from tests.training.runs import curve, prepare

pytestmark = pytest.mark.slow

EIGHT = ("mesh.data=2", "mesh.fsdp=4", "schedule.branches=[]", "evaluation.points=3")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> RunDir:
    """2 processes x 4 devices, from the first step to the last."""
    run = prepare(tmp_path_factory.mktemp("whole"), *EIGHT)
    assert train(run, 2) == [0, 0]
    return run


def same(run: RunDir, other: RunDir) -> bool:
    return all(curve(run, kind).equals(curve(other, kind)) for kind in ("steps", "evals"))


@pytest.mark.parametrize("count", [1, 4])
def test_processes_of_equal_mesh_shape_give_the_same_bits(whole, tmp_path, count):
    """All of them add up through gloo, one rank a device, wherever the devices are."""
    run = prepare(tmp_path, *EIGHT)
    assert train(run, count) == [0] * count
    assert same(run, whole)
    assert json.loads(run.examples.read_text()) == json.loads(whole.examples.read_text())


def test_parts_of_a_sequence_in_several_processes(tmp_path):
    """Four processes: two with the same rows, of which each has its part of every one."""
    runs = {}
    for count in (1, 2, 4):
        (tmp_path / str(count)).mkdir()
        runs[count] = prepare(tmp_path / str(count), "mesh.data=2", "mesh.context=2", "schedule.branches=[]")
        assert train(runs[count], count) == [0] * count
    assert same(runs[1], runs[2])
    assert same(runs[1], runs[4])


def test_a_process_of_its_own_differs_by_the_order_of_sums_alone(whole, tmp_path):
    """Which is gloo's ring there, and that of the ranks here."""
    run = prepare(tmp_path, *EIGHT)
    assert ended([start_alone(run)]) == [0]
    ours, theirs = (read_curve(each, "steps")["loss"].to_numpy() for each in (run, whole))
    assert len(ours) == len(theirs) == 30
    np.testing.assert_allclose(ours[:3], theirs[:3], rtol=1e-6)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    assert json.loads(run.examples.read_text()) == json.loads(whole.examples.read_text())


def test_sums_of_two_are_the_same_within_a_process_and_across_two(tmp_path):
    folders = [tmp_path / name for name in ("across", "within")]
    for folder in folders:
        folder.mkdir()
    across, within = (prepare(folder, "mesh.data=2") for folder in folders)
    assert train(across, 2) == [0, 0]
    assert ended([start_alone(within)]) == [0]
    assert same(across, within)
    assert same(across.branch(0.5), within.branch(0.5))


def test_several_processes_start_from_the_checkpoint_of_a_parent(whole, tmp_path):
    """Of a parent over two processes."""
    source = f"data.sources.own.path={whole.path.parents[3] / 'text.txt'}"
    tuning = ("finetune.method=lora", "finetune.rank=2", f"finetune.parent={whole.path}", source)
    folders = [tmp_path / name for name in ("across", "within")]
    for folder in folders:
        folder.mkdir()
    across, within = (prepare(each, "mesh.data=2", "schedule.branches=[]", *tuning) for each in folders)
    assert train(across, 2) == [0, 0]
    assert ended([start_alone(within)]) == [0]
    assert same(across, within)


@pytest.mark.parametrize("count", [4, 0])
def test_a_checkpoint_of_two_processes_is_continued_by_another_number(whole, tmp_path, count):
    """Asked in one process to leave, all leave after the same step; 0: by a process of its own."""
    run = prepare(tmp_path, *EIGHT)
    workers = start(run, 2)
    wait_for(lambda: step_of(run) >= 9, workers)
    workers[1].send_signal(signal.SIGTERM)
    assert ended(workers) == [3, 3]
    status = read_status(run)
    assert status.state is State.preempted
    assert 9 < status.step < 30
    assert valid_steps(run)[0][-1] == status.step
    assert (train(run, count) if count else ended([start_alone(run)])) == [0] * (count or 1)
    if count:
        assert same(run, whole)
    else:
        losses = [read_curve(each, "steps")["loss"].to_numpy() for each in (run, whole)]
        one, other = losses
        np.testing.assert_array_equal(one[: status.step], other[: status.step])
        np.testing.assert_allclose(*losses, rtol=1e-5)
    record = read_provenance(run)
    assert record
    told = [(entry["process_devices"], entry["collectives"]) for entry in record.surroundings]
    assert told == [(4, "gloo"), (2, "gloo") if count else (8, "")]


@pytest.mark.parametrize("victim", [1, 0])
def test_a_killed_process_ends_the_run_as_lost_and_the_same_command_continues(whole, tmp_path, victim):
    run = prepare(tmp_path, *EIGHT)
    workers = start(run, 2)
    wait_for(lambda: step_of(run) >= 10, workers)
    workers[victim].kill()
    codes = ended(workers)
    assert codes[1 - victim] == 3
    if victim:  # process 0 alone writes; of its own end the driver tells
        status = read_status(run)
        assert status.state is State.lost
        assert status.message == "process 1 of 2 ended"
    assert train(run, 2) == [0, 0]
    assert same(run, whole)


@pytest.mark.parametrize("victim", [1, 0])
def test_a_process_that_says_nothing_any_more_ends_the_run(tmp_path, victim):
    """It neither ends nor goes on, so no connection tells of it: JAX aborts the others when its time is over,
    and a driver sees that."""
    run = prepare(tmp_path, "mesh.data=2", "schedule.branches=[]", "scale.tokens=76800")
    workers = start(run, 2, heartbeat_seconds=10)
    wait_for(lambda: step_of(run) >= 9, workers)
    workers[victim].send_signal(signal.SIGSTOP)
    assert ended([workers[1 - victim]]) == [-signal.SIGABRT]
    assert workers[victim].poll() is None
    workers[victim].kill()


def test_what_a_run_leaves_behind_is_written_once(whole):
    steps = read_curve(whole, "steps")["step"].to_list()
    assert steps == list(range(1, 31))
    phases = [json.loads(line) for line in whole.timeline.read_text().splitlines()]
    assert [each["phase"] for each in phases].count("start") == 1
    assert whole.log.read_text().count("finished at step 30") == 1
    assert not whole.rendezvous.exists()
    assert valid_steps(whole) == ([8, 16, 24, 30], [])
