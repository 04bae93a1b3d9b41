"""Reports of long phases reach the receiver of their thread; whoever waits says for whom."""

from __future__ import annotations

import os
import socket
import threading
import time

from harness.core.progress import report as reporting
from harness.core.progress.report import opaque, report, reports_to
from harness.core.progress.waiting import hold_lock, hold_thread_lock


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
