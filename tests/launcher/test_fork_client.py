"""The fork server of a command: whom it serves when, what its children see, and how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.config.compose import compose
from harness.launcher.engines.local import fork_client
from harness.launcher.engines.local.fork_client import PRELOAD, ForkRequest, ForkServer, shared_server
from harness.launcher.stages.describe_runs import _run_describe
from harness.records.run.config_file import write_config
from harness.records.run.status import ProcessInfo
from tests.launcher.support import wait_for

PROBE = "tests.launcher.probe_child"


@pytest.fixture
def server():
    made = ForkServer((PROBE,))
    yield made
    made.close()


def request(folder: Path, *arguments: str, module: str = PROBE, **fields) -> ForkRequest:
    return ForkRequest(module, arguments, str(folder / "log"), str(folder / "out"), **fields)


def test_a_child_gets_its_arguments_and_environment_and_its_status_comes_back(server, tmp_path):
    sent = request(tmp_path, "sees", env={"PROBE": "x"}, cores=[min(os.sched_getaffinity(0))])
    assert server.run(sent) == 0
    seen = json.loads((tmp_path / "out").read_text())
    assert seen["env"] == {"PROBE": "x"}
    assert seen["cores"] == [min(os.sched_getaffinity(0))]
    assert seen["stdin"] == os.devnull
    assert server.run(request(tmp_path, "fails")) == 7
    assert server.run(request(tmp_path, "raises")) == 1
    assert "ValueError: as told" in (tmp_path / "log").read_text()


def test_the_modules_of_every_command_build_no_backend_and_leave_users_modules_to_children(tmp_path):
    server = ForkServer((*PRELOAD, PROBE))
    assert server.run(request(tmp_path, "sees")) == 0
    server.close()
    seen = json.loads((tmp_path / "out").read_text())
    assert seen["missing"] == [], "all are imported before the fork"
    assert seen["backends"] == []
    assert seen["users"] == []


def test_a_module_that_is_there_is_served_before_the_others_are_imported(tmp_path, monkeypatch):
    (tmp_path / "slow_to_import.py").write_text("import time; time.sleep(600)")
    monkeypatch.syspath_prepend(tmp_path)
    server = ForkServer((PROBE, "json", "slow_to_import"))
    start = time.monotonic()
    assert server.run(request(tmp_path, "fails")) == 7
    messages: list[object] = []
    server.fork(request(tmp_path, module="tests.launcher.fake_worker"), messages.append)
    server.read_messages(0.5)
    assert messages == [], "its module would have been imported in every child"
    process = server.process
    server.close()
    assert process is not None
    assert process.returncode == -signal.SIGKILL
    assert time.monotonic() - start < 60, "and not after the 600 s of the import"


def test_a_module_that_cannot_be_imported_costs_its_own_children_alone(tmp_path):
    server = ForkServer(("no_such_module", PROBE))
    assert server.run(request(tmp_path, module="no_such_module")) == 1
    assert "No module named 'no_such_module'" in (tmp_path / "log").read_text()
    assert server.run(request(tmp_path, "fails")) == 7
    server.close()


def test_an_interruption_ends_the_child_and_the_server(server, tmp_path, monkeypatch):
    children: list[int] = []

    def interrupt(self, wait_seconds: float = 0.0) -> None:
        read(self, wait_seconds)
        with contextlib.suppress(OSError, ValueError):
            children.append(int((tmp_path / "out").read_text()))
            raise KeyboardInterrupt

    read = ForkServer.read_messages
    monkeypatch.setattr(ForkServer, "read_messages", interrupt)
    monkeypatch.setattr(fork_client, "TICK_SECONDS", 0.01)
    server.start()
    process = server.process
    with pytest.raises(KeyboardInterrupt):
        server.run(request(tmp_path, "sleeps"))
    assert process.returncode == -signal.SIGKILL
    wait_for(lambda: not _lives(children[0]))


def test_a_server_that_dies_is_named_with_what_it_printed(tmp_path, monkeypatch):
    (tmp_path / "ends_python.py").write_text("import os; os.write(2, b'out of luck'); os._exit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError, match="the fork server ended: out of luck"):
        ForkServer(("ends_python",)).run(request(tmp_path))


def test_nested_callers_share_one_server_and_the_outermost_ends_it():
    with shared_server() as outer:
        with shared_server() as inner:
            assert inner is outer
            inner.start()
        assert outer.is_alive
        process = outer.process
    assert process.returncode == -signal.SIGKILL
    with shared_server() as other:
        assert other is not outer
        assert other.process is None, "it starts with its first child"


def test_a_server_ends_with_a_driver_that_is_killed(tmp_path):
    code = "import sys; from harness.launcher.engines.local.fork_client import ForkServer as F\n"
    code += "f = F(('json',)); f.start(); print(f.process.pid, flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code]
    driver = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    pid = int(driver.stdout.readline())
    assert _lives(pid)
    driver.kill()
    driver.wait()
    wait_for(lambda: not _lives(pid))


def _lives(pid: int) -> bool:
    with contextlib.suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
        return state != "Z" and bool(ProcessInfo.from_pid(pid).alive())
    return False


def test_a_config_is_described_as_in_a_process_of_its_own(tmp_path):
    configs = [compose(["scale=xs", f"variant={name}"]) for name in ("mha", "short")]
    configs[1].optimizer.name = "none_such"
    good, bad = _run_describe(configs)
    assert "none_such" in bad["error"]
    file = tmp_path / "config.yaml"
    write_config(file, configs[0])
    command = [sys.executable, "-P", "-m", "harness.worker.describe", str(file)]
    alone = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(alone.stdout) == [good]
