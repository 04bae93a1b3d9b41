"""What lives inside Ray, over none."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.launcher.engines.ray.process_actor import NODE_ADDRESS, ProcessActor, ProcessTask
from harness.records.run.status import ProcessInfo
from tests.launcher.support import wait_for

ROOT = Path(__file__).parents[2]


def task(here: Path, *argv: str, folder: str = "") -> ProcessTask:
    return ProcessTask(
        argv, {"PYTHONPATH": f"{ROOT}:{here}"}, folder or str(here), str(here / "log"), linger_seconds=1e6
    )


@pytest.fixture
def in_ray(monkeypatch) -> None:
    monkeypatch.setattr("harness.launcher.engines.ray.process_actor._node_id", lambda: "n1")
    monkeypatch.setattr("harness.launcher.engines.ray.process_actor._node_address", lambda: "10.1.2.3")


def test_an_actor_says_how_its_process_ended_or_why_it_did_not_begin(tmp_path, in_ray):
    actor = ProcessActor("k", task(tmp_path, "no_such_module"))
    assert (actor.began()["pid"] > 0, actor.wait()) == (True, 1)
    assert "No module named no_such_module" in (tmp_path / "log").read_text()
    actor = ProcessActor("k", task(tmp_path, "json.tool", folder="/no/such/folder"))
    assert "/no/such/folder" in actor.began()["failure"]
    assert actor.wait() is None


def test_a_node_that_does_not_see_the_folder_says_so_and_makes_none(tmp_path, in_ray):
    elsewhere = dataclasses.replace(task(tmp_path, "json.tool"), log=str(tmp_path / "runs" / "probe.log"))
    assert (
        "runs is not there. Choose one that every node sees"
        in ProcessActor("k", elsewhere).began()["failure"]
    )
    assert not (tmp_path / "runs").exists()


def test_an_actor_says_where_it_is(tmp_path, in_ray):
    (tmp_path / "says.py").write_text("import os, pathlib; pathlib.Path('said').write_text(os.environ['A'])")
    made = task(tmp_path, "says")
    assert (
        ProcessActor("k", dataclasses.replace(made, env={**made.env, "A": f"[{NODE_ADDRESS}]"})).wait() == 0
    )
    assert (tmp_path / "said").read_text() == "[10.1.2.3]"


def test_a_process_ends_with_its_actor(tmp_path):
    (tmp_path / "sleeps.py").write_text(
        "import os, pathlib, sys, time\n"
        "pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))\ntime.sleep(600)\n"
    )
    made = task(tmp_path, "harness.launcher.engines.ray.process_actor", "sleeps", "pid")
    code = (
        f"from harness.launcher.engines.ray.process_actor import ProcessActor, ProcessTask; "
        f"ProcessActor('k', {made!r}); "
        "import time; time.sleep(600)"
    )
    actor = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    worker = ProcessInfo.from_pid(int((tmp_path / "pid").read_text()))
    assert worker.alive()
    os.kill(actor.pid, signal.SIGKILL)
    actor.wait()
    wait_for(lambda: not worker.alive())
