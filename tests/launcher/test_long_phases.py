"""A long phase that makes progress is not killed, whatever its length; a hung one is, within its limit."""

from __future__ import annotations

import io
import json
import re
import threading
import time
from dataclasses import replace

import pytest
from rich.console import Console

from harness.core.progress.waiting import hold_lock
from harness.launcher.engines.local.fork_client import ForkServer
from harness.launcher.engines.local.local_engine import LocalEngine
from harness.launcher.sweep import launch
from harness.launcher.workers import progress
from tests.launcher.slow_worker import SECONDS
from tests.launcher.support import configs, tools

STALL = 4.0


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Train one run for each phase, and return the states and what was printed."""
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 1.0)
    monkeypatch.setenv("SLOW_LOCK", str(tmp_path / "other.lock"))

    def launch_phases(phases: list[str], **limits) -> tuple[list[str], str]:
        monkeypatch.setenv("SLOW_PHASES", json.dumps({f"seed{seed}": p for seed, p in enumerate(phases)}))
        settings = {"stall_seconds": STALL, "workers": len(phases), "attempts": 1} | limits
        made = configs(tmp_path, variants=("mha",), seeds=(*range(len(phases)),), **settings)
        server = ForkServer(("polars", "tests.launcher.slow_worker"))
        engine = LocalEngine(tmp_path / "logs", "tests.launcher.slow_worker", server)
        engine.start()  # its imports are not what is timed
        hooks = replace(tools(), engine=lambda *_: engine)
        printed = io.StringIO()
        outcomes = launch(made, hooks, Console(file=printed, width=400))
        server.close()
        return [outcome.state for outcome in outcomes], printed.getvalue()

    return launch_phases


def test_a_long_phase_with_progress_is_not_killed(train, tmp_path):
    def other() -> None:
        with hold_lock(tmp_path / "other.lock", "tokenises prose", ""):
            time.sleep(SECONDS)

    holder = threading.Thread(target=other)
    holder.start()
    states, text = train(["in pieces", "opaque", "waits"])
    holder.join()
    assert states == ["finished"] * 3, text
    assert "killed" not in text
    assert re.search(r"xs/mha/seed0 tokenising, \d+%", text)
    assert re.search(r"xs/mha/seed1 compiles, \d s of at most 3600", text)


def test_a_hung_phase_is_killed_within_its_limit(train):
    start = time.monotonic()
    states, text = train(["hangs in pieces", "hangs opaque"], opaque_seconds=3.0)
    assert states == ["lost"] * 2
    assert len(re.findall("no progress for .* its worker is killed", text)) == 2
    assert time.monotonic() - start < 60, "and not after the 600 s that it hangs"
