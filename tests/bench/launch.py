"""What a driver spends on each of 5,000 runs of a new sweep: `python -m tests.bench.launch`.

From the configs, as described, to the last worker handed to a Ray that is made up, and at each look from then
on: directories on this disk, the ledger, the schedule. What describing a model costs is not in it.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from harness.config.schema.engine import EngineConfig, RayConfig
from harness.launcher.engines.engine_api import Exit
from harness.launcher.engines.ray.ray_engine import RayEngine, RayWorker
from harness.launcher.sweep import launch
from tests.launcher.fake_ray import FakeRay
from tests.launcher.support import config, tools

JOBS, LOOKS = 5000, 5


class Enough(Exception):
    pass


class Timed(RayEngine):
    """Leaves after so many looks."""

    def __init__(self, engine: EngineConfig, logs: Path) -> None:
        super().__init__(engine.ray, logs, ray=FakeRay())
        self.polls: list[float] = []

    def poll(self, handle: RayWorker) -> Exit | None:
        self.polls.append(time.perf_counter())
        if len(self.polls) > LOOKS * JOBS:
            raise Enough
        return super().poll(handle)


def main() -> None:
    made: list[Timed] = []

    def engine(settings: EngineConfig, logs: Path) -> Timed:
        made.append(Timed(settings, logs))
        return made[-1]

    with tempfile.TemporaryDirectory() as folder:
        asked = [
            config(Path(folder) / "runs", seed=seed, workers=0, name="ray", ray=RayConfig())
            for seed in range(JOBS)
        ]
        begun, busy = time.perf_counter(), time.process_time()
        try:
            launch(asked, dataclasses.replace(tools(), engine=engine), Console(quiet=True))
        except Enough:
            print(said(made[0].polls, begun, time.process_time() - busy))


def said(polls: Sequence[float], begun: float, busy: float) -> str:
    to_hand_in = 1e3 * (polls[0] - begun) / JOBS
    look = 1e3 * (polls[-1] - polls[0]) / JOBS / LOOKS
    return (
        f"{JOBS:,} runs: {to_hand_in:.1f} ms each to hand in, {look:.2f} ms each at every look, "
        f"{1e3 * busy / JOBS:.1f} ms of a processor each in all"
    )


if __name__ == "__main__":
    main()
