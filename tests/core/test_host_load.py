"""Load of other processes: what this process and its children use is not theirs."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from harness.core.host import host_load
from harness.core.host.host_load import LoadHistory, OtherLoad


def test_the_load_of_others_leaves_out_this_process(monkeypatch, tmp_path):
    stat, clock = tmp_path / "stat", iter([0.0, 10.0])
    monkeypatch.setattr("harness.core.host.host_load._COUNTERS", stat)
    monkeypatch.setattr("harness.core.host.host_load.time.perf_counter", lambda: next(clock))
    monkeypatch.setattr("harness.core.host.host_load.os.cpu_count", lambda: 2)
    monkeypatch.setattr("harness.core.host.host_load.os.sysconf", lambda _: 100)
    own = iter([(1.0, 0.0, 0.0, 0.0, 0.0), (3.0, 1.0, 1.5, 0.5, 10.0)])
    monkeypatch.setattr("harness.core.host.host_load.os.times", lambda: next(own))
    stat.write_text("cpu  100 0 100 5000 100 0 0 0 50 0\n")
    load = OtherLoad()
    stat.write_text("cpu  900 0 300 6000 100 0 0 0 90 0\n")
    assert load.share() == pytest.approx((10.0 - 5.0) / 10 / 2)


def test_a_system_that_does_not_say_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setattr("harness.core.host.host_load._COUNTERS", tmp_path / "none")
    assert OtherLoad().share() is None


def spin(seconds: float) -> list[str]:
    """A command that starts a process that computes for so many CPU seconds, and waits for it."""
    work = f"import time\nwhile time.process_time() < {seconds}: pass"
    return [
        sys.executable,
        "-S",
        "-c",
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {work!r}])",
    ]


def test_processes_below_this_one_count_as_its_own_while_they_live_and_after():
    before = host_load._seconds_of(host_load._descendants([os.getpid()])) + sum(os.times()[:4])
    with subprocess.Popen(spin(0.5)) as parent:
        time.sleep(0.3)
        assert len(host_load._descendants([os.getpid()])) >= 2
        parent.wait()
    after = host_load._seconds_of(host_load._descendants([os.getpid()])) + sum(os.times()[:4])
    assert after - before >= 0.45


def test_the_load_of_an_interval_is_that_of_the_samples_around_it(monkeypatch):
    history = LoadHistory()
    monkeypatch.setattr("harness.core.host.host_load.os.cpu_count", lambda: 2)
    busy = {0.0: 0.0, 5.0: 0.0, 10.0: 10.0, 15.0: 15.0}
    history._samples = [(moment, host_load._LoadSample(moment, used)) for moment, used in busy.items()]
    assert history.share(0.0, 5.0) == 0.0
    assert history.share(6.0, 9.0) == 1.0
    assert history.share(11.0, 14.0) == 0.5
    assert history.share(1.0, 99.0) == 0.5
    assert LoadHistory().share(0.0, 1.0) is None


def test_a_history_samples_until_its_block_ends():
    with LoadHistory(seconds=0.01) as history:
        start = time.time()
        time.sleep(0.1)
    share = history.share(start, time.time())
    assert share is None or 0.0 <= share <= 1.5
    assert len(history._samples) >= 3
