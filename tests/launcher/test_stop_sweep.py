"""`harness stop`: who was told, and what is said where nobody could be."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from harness.cli import main
from harness.core.errors import UserError
from harness.launcher.stages import stop_sweep as stop_stage
from harness.launcher.stages.stop_sweep import stop_sweep
from harness.launcher.sweep_lock import handle_signals, hold_sweep_lock
from harness.records.paths import SweepDir
from harness.records.run.run_lock import acquire, release
from harness.records.run.status import read_status
from harness.records.sweep.stop_request import write_request
from tests.launcher.support import configs, drive, train, wait_for

OTHER_NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc"]


@pytest.fixture
def sweep(tmp_path) -> SweepDir:
    made = SweepDir(tmp_path / "trial")
    made.path.mkdir()
    return made


def lock_as(path, host: str, pid: int = 7) -> None:
    """Lock it for a process that cannot be seen from here."""
    assert acquire(path)
    path.write_text(json.dumps({"host": host, "pid": pid, "started": "another:1"}))


def stopped(sweep: SweepDir, driver: subprocess.Popen, *prefix: str) -> str:
    wait_for(lambda: read_status(sweep.run("xs", "mha", 0)).step >= 1)
    command = [*prefix, sys.executable, "-P", "-m", "harness", "stop", str(sweep.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    output = driver.communicate(timeout=30)[0]
    assert done.returncode == 0, done.stderr + output
    assert read_status(sweep.run("xs", "mha", 0)).state.value == "preempted"
    assert not sweep.stop_request.exists()
    return done.stdout


def can_unshare() -> bool:
    try:
        return subprocess.run([*OTHER_NAMESPACE, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not can_unshare(), reason="no PID namespace may be made here")
def test_a_driver_is_told_from_another_pid_namespace(tmp_path):
    sweep, driver = SweepDir(tmp_path / "trial"), drive(tmp_path, pace=1.0)
    told = stopped(sweep, driver, *OTHER_NAMESPACE)
    assert "waiting for its answer" in told
    assert f"the driver (process {driver.pid} on {socket.gethostname()}) was told to stop" in told


def test_a_driver_is_told_by_a_signal_where_it_can_be(tmp_path):
    driver = drive(tmp_path, pace=1.0)
    told = stopped(SweepDir(tmp_path / "trial"), driver)
    assert told.startswith("the driver (process ")
    assert "waiting" not in told


def test_a_driver_that_does_not_answer_was_not_told(sweep, capsys):
    lock_as(sweep.driver_lock, "elsewhere")
    with pytest.raises(UserError, match=r"has not answered for 0\.2 s.*`kill -TERM 7` on elsewhere"):
        stop_sweep(sweep, print, answer_seconds=0.2)
    assert "cannot be signalled from here" in capsys.readouterr().out
    release(sweep.driver_lock)
    with hold_sweep_lock(sweep):  # the next driver is not meant
        assert not sweep.stop_request.exists()


def test_a_request_that_cannot_be_written_was_not_told(sweep):
    sweep.stop_request.mkdir()
    lock_as(sweep.driver_lock, "elsewhere")
    with pytest.raises(UserError, match=r"process 7 on elsewhere\) was not told: its request, .*stop\.json"):
        stop_sweep(sweep, print)
    release(sweep.driver_lock)


def test_a_sweep_that_tunes_its_learning_rates_first_is_stopped_too(sweep, monkeypatch, capsys):
    monkeypatch.setattr(stop_stage, "stop_sweep", lambda tuned, _: f"told {tuned.path}")
    lock_as(sweep.tune.driver_lock, "elsewhere")
    assert main(["stop", str(sweep.path)]) == 0
    assert capsys.readouterr().out == f"told {sweep.tune.path}\n"
    release(sweep.tune.driver_lock)
    assert main(["stop", str(sweep.path)]) == 2, "it is no sweep yet"


def test_a_driver_that_ends_meanwhile_is_not_waited_for(sweep):
    lock_as(sweep.driver_lock, "elsewhere")
    assert "ended by itself" in stop_sweep(sweep, lambda _: release(sweep.driver_lock))
    assert not sweep.stop_request.exists()


def test_each_driver_answers_and_stops_as_on_sigterm(sweep):
    """Whatever it does at that moment, since it sends itself the signal."""
    heard: list[int] = []
    with handle_signals(lambda number, _: heard.append(number)), hold_sweep_lock(sweep):
        sweep.driver_lock.write_text(json.dumps({"host": "elsewhere", "pid": 7, "started": "another:1"}))
        assert "was told to stop" in stop_sweep(sweep, lambda _: None, answer_seconds=10)
        wait_for(lambda: heard == [signal.SIGTERM], 5)


def test_a_request_of_before_stops_no_later_driver(tmp_path):
    sweep = SweepDir(tmp_path / "trial")
    sweep.path.mkdir()
    write_request(sweep)
    assert {outcome.state for outcome in train(configs(tmp_path))} == {"finished"}


def test_a_worker_that_cannot_be_reached_is_named(sweep, monkeypatch):
    runs = [sweep.run("xs", "mha", seed) for seed in (0, 1)]
    for run in runs:
        run.path.mkdir(parents=True)
        run.run.write_text("{}")
    lock_as(runs[0].worker_lock, socket.gethostname())
    signals: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, _: signals.append(pid))
    with pytest.raises(UserError, match=r"process 7 on .*seed0, was not told.*`kill -TERM 7` there\.$"):
        stop_sweep(sweep, print)
    assert not signals
    assert acquire(runs[1].worker_lock)  # by this process, which can be signalled
    with pytest.raises(UserError, match=r"seed0, was not told.* 1 worker was told to save and leave\.$"):
        stop_sweep(sweep, print)
    assert signals == [os.getpid()]
    for run in runs:
        release(run.worker_lock)
