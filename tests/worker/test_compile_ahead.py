"""A worker that waits for tokens compiles meanwhile: its run's programs, then those of the runs behind it."""

from __future__ import annotations

import importlib
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from harness.core.progress.waiting import hold_lock
from harness.records.paths import RunDir
from harness.records.run.status import State
from harness.training.prepared_run import PreparedRun
from harness.worker.main import _RunTrainer
from harness.worker.scheduler import DeviceAllocation, ScheduledRun
from tests.launcher.support import config, facts

COUNT = 4


@pytest.fixture
def compiled(monkeypatch):
    """Runs whose programs were compiled, with the number of their devices, in order; the third's fail."""
    names = []

    def make_run_programs(config, model, devices, get_batch, heldout, features=None):
        def prepare():
            if config.seed == 2:
                raise MemoryError("no room for this program")
            names.append((config.seed, len(devices)))

        return SimpleNamespace(prepare=prepare)

    monkeypatch.setattr("harness.training.programs.run_programs.make_run_programs", make_run_programs)
    monkeypatch.setattr("harness.training.programs.run_programs.local_rows", lambda *_: None)
    monkeypatch.setattr("harness.training.parent_checkpoint.rebuild_model", lambda *_: None)
    open_data = importlib.import_module("harness.data.open_data")  # the package exports a function so named
    monkeypatch.setattr(open_data, "check_same_content", lambda *_: None)
    monkeypatch.setattr("harness.training.run.train_run", lambda *_: State.finished)
    return names


class Readers:
    """Data behind a lock."""

    def __init__(self, path):
        self.path = path

    @contextmanager
    def open(self, *_):
        with hold_lock(self.path, "reads prose", ""):
            pass
        yield SimpleNamespace(reader=SimpleNamespace(get=None), heldout={}, features=None)


@pytest.fixture
def trained(tmp_path):
    """Train the second of four runs; the odd ones have two devices."""
    tasks = {}
    for seed in range(COUNT):
        made = config(tmp_path, seed=seed)
        run = ScheduledRun(RunDir(tmp_path / str(seed)), "block", 1 + seed % 2)
        run.run.path.mkdir()
        record = SimpleNamespace(facts=facts(made))
        tasks[run] = PreparedRun(run.run, made, record)  # type: ignore[arg-type]
    lock = tmp_path / "tokens.lock"
    worker = _RunTrainer(tasks, ["a", "b"], Readers(lock), None, 60.0)  # type: ignore[arg-type]
    return lock, lambda: worker.train([*tasks][1], DeviceAllocation(0, 0.0, threading.Event()))


def test_nothing_is_compiled_ahead_if_the_tokens_are_there(trained, compiled):
    _, train = trained
    assert train() is State.finished
    assert not compiled


def test_its_own_programs_come_first_then_those_of_the_runs_behind_it(trained, compiled):
    lock, train = trained
    held, leave = threading.Event(), threading.Event()

    def tokenise():
        with hold_lock(lock, "tokenises prose", ""):
            held.set()
            leave.wait(60)

    other = threading.Thread(target=tokenise)
    other.start()
    held.wait()
    threading.Timer(0.3, leave.set).start()
    assert train() is State.finished, "the error of another run's program ended this run"
    other.join()
    assert compiled == [(1, 2), (3, 2)]
