"""A sweep whose runs have two processes each, through the driver, and one of them killed."""

from __future__ import annotations

import io
import os
import signal
import threading

import pytest
from rich.console import Console

from harness.config.compose import compose
from harness.launcher.engines.local.local_engine import LocalEngine
from harness.launcher.sweep import LaunchHooks, Outcome, launch
from harness.records.paths import RunDir, SweepDir
from harness.records.run.metrics import read_curve
from harness.records.run.status import read_status
from tests.launcher.support import wait_for
from tests.training.runs import TINY, write_text


@pytest.mark.slow
def test_the_processes_of_a_run_are_started_again_together(tmp_path):
    text = f"data.sources.own.path={write_text(tmp_path)}"
    shape = ("mesh.data=4", "engine.processes=2", "experiment_name=two", f"runs={tmp_path}")
    config = compose(["data=own", text, *TINY, "schedule.branches=[]", *shape])
    run = SweepDir(tmp_path / "two").run(config.scale.name, config.variant.name, config.seed)
    tools = LaunchHooks(engine=lambda _, logs: LocalEngine(logs), conclude=lambda *_: None)
    output = io.StringIO()
    console = Console(file=output, width=200)
    killer = threading.Thread(target=_kill, args=(run,))
    killer.start()
    outcomes = launch([config], tools, console)
    killer.join()
    assert outcomes == [Outcome("xs/mha/seed0", "finished", 30)]
    said = output.getvalue()
    assert "process 0 of 2: the worker was ended by SIGKILL" in said
    assert "it is started again" in said
    assert read_status(run).attempt == 2
    assert read_curve(run, "steps")["step"].to_list() == list(range(1, 31))


def _kill(run: RunDir) -> None:
    """Process 0, once it is in its stride."""
    wait_for(lambda: read_status(run).step >= 10, 120)
    writer = read_status(run).writer
    assert writer
    os.kill(writer.pid, signal.SIGKILL)
