"""What a lane waits for its input is on its record, and goes on over a restart."""

import dataclasses
import threading
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from harness.records.paths import RunDir
from harness.records.run import metrics
from harness.records.run.checkpoint_manifest import read_manifest
from harness.records.run.metrics import read_curve
from harness.records.run.status import State, read_status
from harness.training.loop import MetricsBuffer, Progress
from harness.training.output.run_writer import RunWriter
from harness.training.run import train_run
from tests.training.runs import assignment, lane, prepare, stopping_at, train

PAUSE = 0.03


def slowly(get_batch):
    def get(t: int):
        time.sleep(PAUSE)
        return get_batch(t)

    return get


def rows(run):
    steps = read_curve(run, "steps")
    return steps["input_seconds"].to_numpy(), steps["device_seconds"].to_numpy()


@pytest.fixture(scope="module")
def slept(tmp_path_factory):
    """Trained with a reader that sleeps, stopped at step 20 and resumed."""
    run = prepare(tmp_path_factory.mktemp("slept"))
    for at in (20, None):
        stop, opened = threading.Event(), lane(run)
        reads = slowly(opened.get_batch)
        reads = reads if at is None else stopping_at(at, reads, stop)
        train_run(assignment(run), dataclasses.replace(opened, get_batch=reads), stop)
    assert read_status(run).state is State.finished
    return run


def test_a_reader_that_sleeps_is_seen_in_each_step_that_waits_over_a_restart(slept):
    waited, trained = rows(slept)
    is_waiting = np.diff(waited, prepend=0) >= PAUSE
    # Where none waited, the devices were busy with the step before for as long as the reader slept.
    assert np.all(is_waiting | (np.diff(trained, prepend=0) >= PAUSE))
    assert is_waiting.mean() > 0.8
    assert np.all(waited <= trained)
    assert read_status(slept).input_share == waited[-1] / trained[-1]
    assert read_manifest(slept, 30).input_seconds == waited[-1]


def test_a_reader_that_devices_do_not_wait_for_costs_nothing(tmp_path):
    busy = SimpleNamespace(is_ready=lambda: False)
    stub: Any = SimpleNamespace(devices=[0], get_batch=slowly(lambda t: t), put_batch=lambda batch: batch)
    none: Any = None
    meter = MetricsBuffer(stub, none, RunWriter(RunDir(tmp_path), 9, 0, 1), Progress(0, none, "", 3.0, 1.0))
    meter._pending = 6, 0.1, busy, 0.0  # pyright: ignore
    meter.read_batch(7)
    assert meter.input_seconds == 1.0


def test_it_counts_times_the_devices_of_the_lane(tmp_path):
    stub: Any = SimpleNamespace(devices=[0, 1], get_batch=slowly(lambda t: t), put_batch=lambda batch: batch)
    none: Any = None
    meter = MetricsBuffer(stub, none, RunWriter(RunDir(tmp_path), 9, 0, 1), Progress(0, none, "", 3.0, 1.0))
    assert meter.read_batch(7) == (7, 7)
    assert 1 + 2 * PAUSE <= meter.input_seconds < 1 + 2 * PAUSE + 1


def test_a_branch_goes_on_from_its_parent(slept):
    waited, _ = rows(slept)
    own, _ = rows(slept.branch(0.5))
    assert own[0] > waited[12]  # it leaves at step 13


def test_parts_from_before_the_column_are_read_with_others(tmp_path, monkeypatch):
    run = prepare(tmp_path)
    row = dict.fromkeys(metrics.STEPS, 1)
    with monkeypatch.context() as patch:
        patch.setitem(
            metrics.SCHEMAS, "steps", {k: v for k, v in metrics.STEPS.items() if k != "input_seconds"}
        )
        metrics.write_part(run, "steps", 0, 1, [row | {"step": 1}])
    metrics.write_part(run, "steps", 1, 2, [row | {"step": 2}])
    read = read_curve(run, "steps")
    assert read.schema == pl.Schema(metrics.STEPS)
    assert read["input_seconds"].to_list() == [None, 1.0]
    metrics.merge_parts(run)
    assert read_curve(run, "steps")["input_seconds"].to_list() == [None, 1.0]


def test_a_run_that_is_over_keeps_its_share(slept):
    before = read_status(slept).input_share
    assert train(slept) is State.finished  # from its last checkpoint: no step is left
    assert read_status(slept).input_share == before
