"""What becomes of workers when their fork server is killed and another one follows it."""

from __future__ import annotations

import os
import signal

import pytest

from harness.launcher.engines.engine_api import Exit, WorkerSpec
from harness.launcher.engines.local.fork_client import ForkServer
from harness.launcher.engines.local.local_engine import LocalEngine
from harness.launcher.run_directories import provenance_of
from harness.launcher.runs import Run, run_dir, sweep_dir
from harness.records.paths import RunDir
from harness.records.run.config_file import write_config
from harness.records.run.provenance import write_provenance
from harness.records.run.run_lock import worker_of
from tests.launcher.support import configs, facts, wait_for

FAKE_WORKER = "tests.launcher.fake_worker"


@pytest.fixture
def engine(tmp_path):
    server = ForkServer(("polars", FAKE_WORKER))
    yield LocalEngine(tmp_path / "logs", FAKE_WORKER, server)
    server.close()


@pytest.fixture
def runs(tmp_path) -> list[RunDir]:
    """Two that were prepared and never begun."""
    made = configs(tmp_path, variants=("mha", "short"), seeds=(0,))
    prepared = [Run(config, facts(config), run_dir(sweep_dir(made), config)) for config in made]
    for run in prepared:
        run.dir.path.mkdir(parents=True)
        write_config(run.dir.config, run.config)
        write_provenance(run.dir, provenance_of(run))
    return [run.dir for run in prepared]


def order(run: RunDir, pace: float) -> WorkerSpec:
    return WorkerSpec(run.path.parent.name, (run.path,), {"FAKE_PACE": str(pace)}, run.path / "worker.log")


def test_a_worker_that_outlived_its_server_is_seen_to_end(engine, runs):
    first = engine.submit(order(runs[0], 0.5))
    wait_for(lambda: engine.poll(first) is None and worker_of(runs[0]) and first.writer)
    _kill_server(engine)
    second = engine.submit(order(runs[1], 0.5))
    os.kill(first.writer.pid, signal.SIGKILL)
    wait_for(lambda: engine.poll(first) == Exit(None, "the worker ended"))
    assert engine.poll(second) is None, "its server lives"
    engine.cancel(second, hard=True)
    wait_for(lambda: engine.poll(second) == Exit(-9, "the worker was ended by SIGKILL"))


def test_an_order_that_died_with_its_server_is_not_waited_for(engine, runs):
    engine.start()
    os.kill(engine._server.process.pid, signal.SIGSTOP)
    lost = engine.submit(order(runs[0], 0.1))
    _kill_server(engine)
    second = engine.submit(order(runs[1], 0.1))
    ended = engine.poll(lost)
    assert ended is not None
    assert "fork server ended" in ended.message
    engine.cancel(second, hard=True)
    wait_for(lambda: engine.poll(second))


def _kill_server(engine: LocalEngine) -> None:
    engine._server.process.kill()
    engine._server.process.wait()
