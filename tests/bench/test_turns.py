"""The contenders of the step benchmark: live processes that take turns, and the worker's steps on request."""

from __future__ import annotations

import io
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.bench import turns, worker_step
from tests.bench.turns import LiveContender, spread, take_turns

CONTENDER = """
import sys
from tests.bench.contender import answer_steps
log, name = sys.argv[1:]
def step():
    with open(log, "a") as file:
        file.write(name)
    print("a library's line")
answer_steps(step)
"""


@pytest.fixture
def contenders(tmp_path: Path) -> Iterator[list[LiveContender]]:
    started = [LiveContender(name, ["-c", CONTENDER, str(tmp_path / "log"), name]) for name in "abc"]
    for contender in started:
        contender.wait_until_ready()
    (tmp_path / "log").write_text("")  # without the first steps, which compile
    yield started
    for contender in started:
        contender.__exit__(None, None, None)


def test_contenders_take_turns_and_the_order_moves_on(
    contenders: list[LiveContender], tmp_path: Path
) -> None:
    times = take_turns(contenders, rounds=3)
    assert (tmp_path / "log").read_text() == "abc" + "bca" + "cab" + "abc"  # one round before, to warm up
    assert {name: len(seconds) for name, seconds in times.items()} == dict.fromkeys("abc", 3)


def test_a_contender_that_leaves_is_named() -> None:
    with (
        LiveContender("naive", ["-c", "raise SystemExit(7)"]) as contender,
        pytest.raises(RuntimeError, match="naive left with status 7"),
    ):
        contender.wait_until_ready()


def test_a_step_of_the_worker_is_asked_for_and_answered_once_its_result_is_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock, calls = [0.0], []

    def step(index: int) -> int:
        calls.append(index)
        return index

    def wait(result: Any) -> None:
        clock[0] += 1.0  # the device needs a second

    monkeypatch.setattr(worker_step.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(worker_step.jax, "block_until_ready", wait)
    monkeypatch.setattr(worker_step.sys, "stdin", io.StringIO("\n\n"))
    monkeypatch.setattr(worker_step.os, "_exit", _leave)
    dispatch = worker_step.on_request(step)
    dispatch(0)
    assert capsys.readouterr().out == ""  # it compiles, unasked
    dispatch(1)
    clock[0] += 0.5  # the host reads a batch meanwhile
    dispatch(2)
    assert capsys.readouterr().out.splitlines() == ["ready", "seconds 1.5"]
    with pytest.raises(EOFError):
        dispatch(3)
    assert calls == [0, 1, 2]


def _leave(status: int) -> None:
    raise EOFError


def test_spread_is_numpys() -> None:
    values = np.random.default_rng(0).lognormal(size=11).tolist()
    found = spread(values)
    assert [found.low, found.median, found.high] == pytest.approx(np.percentile(values, [25, 50, 75]))
    assert spread(values).median == statistics.median(values)
    assert spread([2.0]).text() == "2.00 (2.00 to 2.00)"


def test_ratios_are_taken_round_by_round() -> None:
    times = {"ours": [1.0, 10.0], "theirs": [2.0, 20.0]}  # a machine that grows ten times slower
    assert turns.ratios(times, "theirs", "ours") == [2.0, 2.0]
