"""File systems without locks, locks that do not reach, and what a lost machine left: one sentence each."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import os
import threading
import time
from pathlib import Path

import pytest

from harness.core import atomic_files
from harness.core.errors import UserError
from harness.core.progress.waiting import hold_lock
from harness.data.tokenizing import claims
from harness.launcher.engines import preflight
from harness.launcher.engines.engine_api import WorkerSpec
from harness.launcher.engines.local.local_engine import LocalEngine
from harness.records.paths import RunDir
from harness.records.run.run_lock import acquire, check_not_run_elsewhere, owner, release, release_and_remove
from harness.records.run.status import ProcessInfo, State, Status, write_status

ELSEWHERE = ProcessInfo("node17", 4711, "boot:1")


@pytest.fixture(params=[errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS])
def no_locks(request, monkeypatch):
    def flock(*_):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.fixture
def run(tmp_path) -> RunDir:
    """As the status of a run says whose machine is elsewhere, or gone."""
    run = RunDir(tmp_path / "xs" / "mha" / "seed0")
    write_status(run, Status(State.running, step=3, steps=9, writer=ELSEWHERE))
    return run


def test_without_locks_nothing_is_claimed_and_nothing_left(no_locks, tmp_path):
    with pytest.raises(
        UserError, match=r"runs/trial: its file system does not support locks \(.*\), .*; mount it with"
    ):
        acquire(tmp_path / "runs" / "trial" / "driver.lock")
    assert [*(tmp_path / "runs").iterdir()] == []
    (tmp_path / "trial").mkdir()
    (tmp_path / "trial" / "rule.json").touch()
    with pytest.raises(UserError):
        acquire(tmp_path / "trial" / "driver.lock")
    assert [path.name for path in (tmp_path / "trial").iterdir()] == ["rule.json"]


def test_who_waited_for_a_file_that_is_taken_away_holds_the_one_that_has_its_name(tmp_path):
    file, taken = tmp_path / "driver.lock", []
    with file.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        waits = threading.Thread(target=lambda: taken.append(acquire(file, wait_seconds=20)))
        waits.start()
        links = Path("/proc/self/fd")
        while sum(os.path.realpath(link) == str(file) for link in links.iterdir()) < 2:
            time.sleep(0.01)
        file.unlink()
    waits.join()
    assert taken == [True]
    assert owner(file) is not None
    release_and_remove(file)
    assert not file.exists()


def test_readers_need_no_locks(no_locks, tmp_path):
    (tmp_path / "driver.lock").write_text("{}")
    assert owner(tmp_path / "driver.lock") is None


def test_a_cache_without_locks_is_told_of(no_locks, tmp_path):
    with (
        pytest.raises(UserError, match="choose another cache with AB_HARNESS_CACHE=FOLDER"),
        hold_lock(tmp_path / "x", "tokenises", claims.WAY_OUT),
    ):
        pass


def test_other_trouble_with_a_lock_is_not_explained_away(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="Input/output") as caught:
        acquire(tmp_path / "x.lock")
    assert not isinstance(caught.value, UserError)


def test_a_run_of_a_machine_that_may_be_gone_says_how_to_take_it_over(run):
    with pytest.raises(
        UserError, match=r"is trained by process 4711 on node17\. Continue it there, or wait"
    ) as caught:
        check_not_run_elsewhere(run)
    assert f"gone for good, delete {run.status}, and the run continues here" in str(caught.value)
    run.status.unlink()
    check_not_run_elsewhere(run)


def test_a_run_that_another_machine_holds_is_not_to_be_taken_over(run):
    """Its lock is seen to be held, so that machine lives."""
    assert acquire(run.worker_lock)
    atomic_files.write_json(run.worker_lock.with_name("held"), dataclasses.asdict(ELSEWHERE))
    run.worker_lock.write_bytes(run.worker_lock.with_name("held").read_bytes())
    with pytest.raises(UserError, match=r"or wait for its end\.$"):
        check_not_run_elsewhere(run)
    release(run.worker_lock)


def test_an_ended_run_and_one_of_this_machine_are_let_pass(run):
    for state, writer in ((State.finished, ELSEWHERE), (State.running, ProcessInfo.current())):
        write_status(run, Status(state, writer=writer))
        check_not_run_elsewhere(run)


def test_the_local_engine_starts_nothing_beside_it(run, tmp_path):
    engine = LocalEngine(tmp_path / "workers")
    orders = [WorkerSpec("xs/seed0", (tmp_path / "free", run.path), {}, tmp_path / "log")]
    with pytest.raises(UserError, match="node17"):
        engine.check(orders, [], print)
    with pytest.raises(UserError, match="node17"):
        engine.adopt(ELSEWHERE, orders[0])
    engine.check([WorkerSpec("xs/seed1", (tmp_path / "free",), {}, tmp_path / "log")], [], print)
    assert not (tmp_path / "workers").exists()


@pytest.mark.parametrize("reaches", [True, False])
def test_a_node_that_does_not_see_the_drivers_lock_says_so(reaches, tmp_path, monkeypatch):
    monkeypatch.setattr(preflight.importlib, "import_module", lambda name: None)
    ask, answer, lock = preflight._exchange_files(tmp_path, "token")
    ask.write_text("token")
    assert acquire(lock)
    if not reaches:  # as where each machine keeps locks of its own
        release(lock)
    preflight.write_answer(tmp_path, "token", [])
    release(lock)
    failure = atomic_files.read_json(answer)["failure"]
    assert failure == "" if reaches else "file locks" in failure
    assert reaches or "two workers could train one run: mount it with locks" in failure
