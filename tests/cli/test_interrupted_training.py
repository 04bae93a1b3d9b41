"""Ctrl-C in `harness train`: the run saves and ends, whatever is at work at that moment."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from harness.cli import train_one
from harness.launcher.sweep_lock import Interrupted
from harness.records.paths import RunDir
from harness.records.run.status import State, read_status
from harness.worker import main as worker_main
from tests.cli.support import start
from tests.launcher.support import wait_for


def a_run(path: Path) -> Any:
    config = SimpleNamespace(cluster=SimpleNamespace(platform="tpu"))
    return SimpleNamespace(config=config, devices=1, dir=RunDir(path))


def test_an_interrupt_that_a_callback_swallows_still_stops_the_run(tmp_path, monkeypatch):
    """As one of JAX's does: Python prints the error of a callback and goes on."""

    def swallow(argv: list[str], env: dict[str, str], stop: Event) -> None:
        with contextlib.suppress(Interrupted):
            signal.raise_signal(signal.SIGINT)
        assert stop.is_set()

    monkeypatch.setattr(worker_main, "main", swallow)
    before = signal.getsignal(signal.SIGINT)
    train_one._train_here(a_run(tmp_path))
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_does_not_wait():
    stop, before = Event(), {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)}
    try:
        worker_main._stop_on_signals(stop)
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.slow
def test_ctrl_c_while_a_run_trains_saves_it(tmp_path):
    process = start("train", "scale=xs", "variant=mha", "scale.tokens=50000000", folder=tmp_path)
    try:
        runs = tmp_path / "runs"
        wait_for(lambda: any(read_status(RunDir(f.parent)).step > 1 for f in runs.rglob("run.json")), 240)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    (file,) = runs.rglob("run.json")
    status = read_status(RunDir(file.parent))
    assert (process.returncode, status.state) == (130, State.preempted), output + (errors or "")
    assert RunDir(file.parent).manifest(status.step).exists()
