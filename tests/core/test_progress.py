"""Reports of long phases reach the receiver of their thread; whoever waits says for whom."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator

from harness.core.progress import report as reporting
from harness.core.progress.report import opaque, report, reports_to
from harness.core.progress.waiting import hold_lock, hold_one_of, hold_thread_lock, spare_work


def test_reports_reach_the_receiver_of_their_thread_alone():
    outer, inner, other = [], [], []
    report("nobody listens")
    with reports_to(outer.append):
        report("reading", 1, 4)
        with reports_to(inner.append):
            report("hashing")
        thread = threading.Thread(target=lambda: report("lost"))
        thread.start()
        thread.join()
        report("again", 9, 4)
    with reports_to(other.append):
        pass
    assert (outer, inner, other) == (["reading, 25%", "again, 100%"], ["hashing"], [])


def test_an_opaque_phase_reports_until_its_limit_and_no_longer(monkeypatch):
    monkeypatch.setattr(reporting, "BEAT_SECONDS", 0.05)
    beats: list[str] = []
    with reports_to(beats.append, opaque_seconds=0.4):
        with reports_to(beats.append), opaque("compiles"):  # the inner receiver keeps the limit
            time.sleep(1.0)
            assert 2 <= len(beats) <= 9
            ended = len(beats)
            time.sleep(0.3)
        assert len(beats) == ended
    assert beats[0] == "compiles, 0 s of at most 0"
    with opaque("nobody listens"):
        pass


def test_an_opaque_phase_that_ends_is_silent_at_once(monkeypatch):
    monkeypatch.setattr(reporting, "BEAT_SECONDS", 0.01)
    beats: list[str] = []
    with reports_to(beats.append):
        with opaque("compiles"):
            time.sleep(0.1)
        ended = len(beats)
        time.sleep(0.1)
    assert len(beats) == ended > 1


def test_whoever_waits_for_a_lock_says_for_whom(tmp_path):
    path, beats, order = tmp_path / "some.lock", [], []
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with hold_lock(path, "tokenises prose", ""):
            entered.set()
            leave.wait()
            order.append("other")

    thread = threading.Thread(target=other)
    thread.start()
    entered.wait()

    def receive(text: str) -> None:
        beats.append(text)
        if len(beats) > 2:
            leave.set()

    with reports_to(receive), hold_lock(path, "compiles step", ""):
        order.append("this")
    thread.join()
    assert order == ["other", "this"]
    place = f"process {os.getpid()} on {socket.gethostname()}"
    assert {*beats} == {f"waits for {place}: tokenises prose (some.lock)"}
    assert path.read_text() == f"{place}: compiles step"


def test_whoever_waits_for_a_thread_says_so(monkeypatch):
    monkeypatch.setattr("harness.core.progress.waiting.MAX_POLL_SECONDS", 0.02)
    lock, beats = threading.Lock(), []
    lock.acquire()

    def receive(text: str) -> None:
        beats.append(text)
        if len(beats) == 3:
            lock.release()

    with reports_to(receive), hold_thread_lock(lock, "waits for data"):
        assert beats == ["waits for data"] * 3
        assert lock.locked()
    assert not lock.locked()


def test_as_many_hold_a_lock_at_once_as_there_are_files(tmp_path):
    slots, at_work, peak, guard = [tmp_path / f"{i}.lock" for i in range(3)], 0, 0, threading.Lock()
    full = threading.Barrier(3)

    def work() -> None:
        nonlocal at_work, peak
        with hold_one_of(slots, "compiles", ""):
            with guard:
                at_work += 1
                peak = max(peak, at_work)
            full.wait(60)  # three and no fewer pass
            time.sleep(0.02)
            with guard:
                at_work -= 1

    threads = [threading.Thread(target=work) for _ in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert peak == 3


def test_what_is_left_to_do_is_done_piece_by_piece_instead_of_waiting(tmp_path):
    path, done, leave = tmp_path / "some.lock", [], threading.Event()
    entered = threading.Event()

    def other() -> None:
        with hold_lock(path, "tokenises prose", ""):
            entered.set()
            leave.wait(60)

    def compile_programs() -> Iterator[None]:
        for name in ("step", "evaluate"):
            with hold_lock(tmp_path / "compile.lock", f"compiles {name}", ""):
                done.append(name)
            yield
        leave.set()

    with spare_work(compile_programs()), hold_lock(path, "reads prose", ""):
        assert not done, "nobody holds the lock"
    thread = threading.Thread(target=other)
    thread.start()
    entered.wait()
    with spare_work(compile_programs()):
        for _ in range(2):
            with hold_lock(path, "reads prose", ""):
                assert done == ["step", "evaluate"]
    thread.join()
    leave.clear()
    thread = threading.Thread(target=other)
    entered.clear()
    thread.start()
    entered.wait()
    threading.Timer(0.1, leave.set).start()
    with hold_lock(path, "reads prose", ""):
        assert done == ["step", "evaluate"], "it was left for another wait"
    thread.join()
