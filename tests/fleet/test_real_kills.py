"""Real training, killed over and over, says byte for byte what an undisturbed sweep says.

Slow: `make test-kill`. The command runs in a process of its own; drivers and workers are ended by
SIGKILL at random moments of it, and the same command is given again.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.records.claim import holder, worker_of
from harness.records.layout import SweepDir
from harness.records.status import State, read_status

KILLS = int(os.environ.get("KILLS", "20"))
COMMAND = [
    *(sys.executable, "-m", "harness.cli", "sweep"),
    *("variant=mha,short", "seed=0,1", "scale=xs", "scale.parameters=10000", "scale.tokens=250000"),
    *("checkpoint.every=10", "evaluation.tokens=2048", "engine.backoff_seconds=0.1", "engine.attempts=10"),
]


def start(folder: Path) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        COMMAND, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )


def finish(folder: Path) -> None:
    driver = start(folder)
    text, _ = driver.communicate(timeout=1800)
    assert driver.returncode == 0, text.decode()[-3000:]


def verdict(folder: Path) -> str:
    """`harness compare --json`, without what a clock said."""
    command = [sys.executable, "-m", "harness.cli", "compare", str(folder / "runs" / "adhoc"), "--json"]
    content = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    content.pop("times")
    for rung in content["rungs"]:
        rung["iso"] = [row for row in rung["iso"] if row["axis"] != "device_seconds"]
    return json.dumps(content, sort_keys=True)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [int(os.environ.get("KILL_SEED", "1"))])
def test_kills_leave_no_trace_in_the_verdict(tmp_path, seed):
    finish(tmp_path / "calm")
    chance, folder = random.Random(seed), tmp_path / "killed"
    driver = start(folder)
    for _ in range(KILLS):
        _wait_for_a_moment(folder, driver, chance)
        victim = _victim(folder, driver, chance)
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        if victim == driver.pid or driver.poll() is not None:
            driver.communicate()
            driver = start(folder)
    driver.kill()
    driver.communicate()
    finish(folder)
    runs = SweepDir(folder / "runs" / "adhoc").runs()
    assert any(read_status(run).attempt > 1 for run in runs), "no kill hit a run: nothing was tested"
    assert verdict(folder) == verdict(tmp_path / "calm")


def _wait_for_a_moment(folder: Path, driver: subprocess.Popen, chance: random.Random) -> None:
    """Any moment, or, more often than not, one at which a run is training."""
    time.sleep(chance.uniform(0.2, 4.0))
    while chance.random() < 0.97 and driver.poll() is None:
        statuses = [read_status(run) for run in SweepDir(folder / "runs" / "adhoc").runs()]
        if any(status.state is State.running and status.step > 0 for status in statuses):
            time.sleep(chance.uniform(0.0, 2.0))
            return
        time.sleep(0.2)


def _victim(folder: Path, driver: subprocess.Popen, chance: random.Random) -> int:
    """The driver, or one of the workers if there is one."""
    sweep = SweepDir(folder / "runs" / "adhoc")
    holders = (worker_of(run) for run in sweep.runs())
    workers = sorted({writer.pid for writer in holders if writer is not None and writer.pid})
    if workers and chance.random() < 0.5:
        return chance.choice(workers)
    assert holder(sweep.lock) is None or driver.pid
    return driver.pid
