"""A sweep of fake workers in Ray, in a process that can be killed: `python -m tests.ray.driver RUNS JSON`."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from harness.config.schema.engine import EngineConfig, RayConfig
from harness.config.schema.run import Config
from harness.core.errors import UserError
from harness.launcher.engines.engine_api import WorkerSpec
from harness.launcher.engines.ray import ray_cluster
from harness.launcher.engines.ray.ray_engine import RayEngine, RayWorker
from harness.launcher.sweep import launch
from harness.records.run.status import ProcessInfo
from tests.launcher.support import configs, tools
from tests.ray.cluster import ROOT

SILENT = 2.0
"""Seconds after which a head is lost; it is looked at four times as often."""


def sweep(runs: Path, address: str | None, **settings) -> list[Config]:
    return configs(runs, name="ray", ray=RayConfig(address), workers=0, **settings)


def drive(runs: Path, address: str | None, **settings) -> subprocess.Popen:
    command = [
        sys.executable,
        "-m",
        "tests.ray.driver",
        str(runs),
        json.dumps({"address": address} | settings),
    ]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def main(runs: str, settings: str) -> None:
    ray_cluster.LOST_AFTER_SECONDS, ray_cluster.CHECK_INTERVAL_SECONDS = SILENT, SILENT / 4
    made = sweep(Path(runs), **json.loads(settings))
    try:
        outcomes = launch(made, dataclasses.replace(tools(), engine=_engine), Console(width=100))
    except UserError as error:
        sys.exit(str(error))
    print(json.dumps([outcome.state for outcome in outcomes]))


class Telling(RayEngine):
    """Says whom it found at work."""

    def adopt(self, writer: ProcessInfo, spec: WorkerSpec) -> RayWorker:
        found = super().adopt(writer, spec)
        print(f"adopted {spec.name}", flush=True)
        return found


def _engine(config: EngineConfig, logs: Path) -> Telling:
    return Telling(config.ray, logs, "tests.launcher.fake_worker")


if __name__ == "__main__":
    main(*sys.argv[1:])
