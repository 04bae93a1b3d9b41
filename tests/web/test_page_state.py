"""State of a page: each browser receives each changed value, and nothing waits for one that is away."""

from __future__ import annotations

import math
import threading

import numpy as np

from harness.web import feed_thread
from harness.web.page_state import PageState, json_numbers


def test_a_browser_that_was_away_receives_the_last_value_of_each_key_once():
    state = PageState()
    for i in range(10_000):
        state.put("a", i)
        state.put(f"b/{i % 3}", i)
    changes = state.wait(0, 0)
    assert {change.key: change.content for change in changes} == {
        "a": "9999",
        "b/0": "9999",
        "b/1": "9997",
        "b/2": "9998",
    }
    assert [change.version for change in changes] == sorted(change.version for change in changes)
    assert state.wait(changes[-1].version, 0) == []


def test_an_equal_value_is_no_change_and_none_removes_one():
    state = PageState()
    assert not state.put("a", None), "it was never there"
    assert state.put("a", [1])
    version = state.version
    assert not state.put("a", [1])
    assert state.version == version
    assert state.put("a", None)
    assert [change.content for change in state.wait(version, 0)] == ["null"]


def test_waiting_ends_with_a_change_and_when_the_page_closes():
    state, seen = PageState(), []

    def read() -> None:
        changes = state.wait(0, 30)
        seen.append([change.key for change in changes])
        seen.append(state.wait(changes[-1].version, 30))

    thread = threading.Thread(target=read)
    thread.start()
    state.put("a", 1)
    while not seen:
        pass
    state.close()
    thread.join(10)
    assert seen == [["a"], []]


def test_a_reading_that_fails_is_told_and_tried_again(monkeypatch):
    class BrokenOnce:
        state = PageState()
        calls = 0

        def update(self, now: float) -> bool:
            self.calls += 1
            if self.calls == 1:
                raise ValueError("no such\ncolumn")
            self.state.put("notice", None)
            self.state.put("read", self.calls)
            return False

    monkeypatch.setattr(feed_thread, "RETRY_SECONDS", 0.2)
    feed = BrokenOnce()
    feed.state.join()
    feed_thread.FeedThread(feed).start()
    (first, *_) = feed.state.wait(0, 10)
    assert first.content.endswith('tried again: no such column"}')
    assert {change.key: change.content for change in feed.state.wait(1, 10)}["notice"] == "null"
    feed.state.close()


def test_numbers_that_json_does_not_have_become_null():
    assert json_numbers(np.array([1.23456789, math.nan, math.inf])) == [1.23457, None, None]
    assert json_numbers(np.array([2**40])) == [2**40]
