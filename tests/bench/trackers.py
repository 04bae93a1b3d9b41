"""Steps of a sweep at work with and without the process that mirrors it in a tracker.

The process is stopped and continued in turn, so both figures come from the same runs. It starts and imports
outside the measured steps.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.table import Table

from harness.records.paths import RunDir, SweepDir
from harness.records.run.metrics import read_curve
from harness.records.run.status import read_status
from harness.trackers.mirror_processes import MirrorProcess
from tests.bench.turns import ratios, spread

TRACKER = "tensorboard"
VARIANTS = ("mha", "hybrid")
TURN_STEPS, TURNS = 50, 24
"""Steps between two turns, with a save in each, and number of turns."""
SWEEP = [
    "experiment=attention", "scale=m", "seed=0", f"variant={','.join(VARIANTS)}", "scale.batch=8",
    f"scale.tokens={TURN_STEPS * (TURNS + 2) * 8 * 128}", f"checkpoint.every={TURN_STEPS}",
    "schedule.branches=[]",
]  # fmt: skip


def mirrored_steps(folder: Path) -> Table:
    """Return the table of steps beside a mirror, or of what is missing for it."""
    table = Table(f"steps at scale m beside a mirror in {TRACKER}", "ms a step", "speed with over without")
    if importlib.util.find_spec(TRACKER) is None:
        table.add_row(f"not measured: the package {TRACKER} is not installed", "", "")
        return table
    times = _times(folder)
    without = spread([1e3 * seconds for seconds in times["without"]]).text(".1f")
    with_mirror = spread([1e3 * seconds for seconds in times["with"]]).text(".1f")
    table.add_row(f"{TURNS // 2} turns without", without, "1")
    table.add_row(f"{TURNS // 2} turns with", with_mirror, spread(ratios(times, "without", "with")).text())
    return table


def _times(folder: Path) -> dict[str, list[float]]:
    """Return the seconds of a step in each turn, all runs together."""
    command = [sys.executable, "-m", "harness", "sweep", *SWEEP, f"runs={folder}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        sweep = SweepDir(folder / "attention")
        runs = [RunDir(sweep.path / "m" / variant / "seed0") for variant in VARIANTS]
        while not sweep.ledger.exists() or read_status(runs[0]).step < 1:
            if process.poll() is not None:
                raise RuntimeError(f"the sweep left with status {process.returncode}")
            time.sleep(0.1)
        with _mirror(sweep) as mirror:
            ends = [_take_turn(mirror, runs[0], is_with=bool(turn % 2)) for turn in range(TURNS + 1)]
    turns = [_seconds_a_step(runs, *ends[turn : turn + 2]) for turn in range(TURNS)]
    return {"with": turns[::2], "without": turns[1::2]}


@contextmanager
def _mirror(sweep: SweepDir) -> Iterator[MirrorProcess]:
    order = {"settings": {}, "is_beside_training": True}
    mirror = MirrorProcess.start(sweep, TRACKER, order)
    try:
        yield mirror
    finally:
        mirror.kill()


def _take_turn(mirror: MirrorProcess, run: RunDir, *, is_with: bool) -> int:
    """Stop or continue the mirror once the run has made the steps of this turn. Return its step then."""
    begin = read_status(run).step
    while read_status(run).step < begin + TURN_STEPS:
        time.sleep(0.02)
    os.killpg(mirror.process.pid, signal.SIGSTOP if is_with else signal.SIGCONT)
    return read_status(run).step


def _seconds_a_step(runs: list[RunDir], begin: int, end: int) -> float:
    """Return the mean seconds of steps (begin, end] over the runs; lanes take the same turns, nearly."""
    seconds = 0.0
    for run in runs:
        by_step = dict(read_curve(run, "steps").select("step", "device_seconds").iter_rows())
        seconds += (by_step[end] - by_step[begin]) / (end - begin)
    return seconds / len(runs)
