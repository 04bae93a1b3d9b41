"""A sweep of fake workers in Ray, in a process that can be killed: `python -m tests.ray.driver RUNS JSON`."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from harness.config.engines import EngineConfig, RayConfig
from harness.config.errors import UserError
from harness.config.schema import Config
from harness.fleet.engines import ray_cluster
from harness.fleet.engines.ray import RayEngine
from harness.fleet.launch import launch
from tests.fleet.support import configs, tools
from tests.ray.cluster import ROOT

SILENT = 6.0
"""Seconds after which a head is lost."""


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
    ray_cluster.LOST = SILENT
    made = sweep(Path(runs), **json.loads(settings))
    try:
        outcomes = launch(made, dataclasses.replace(tools(), engine=_engine), Console(width=100))
    except UserError as error:
        sys.exit(str(error))
    print(json.dumps([outcome.state for outcome in outcomes]))


def _engine(config: EngineConfig, logs: Path) -> RayEngine:
    return RayEngine(config.ray, logs, "tests.fleet.fake_worker")


if __name__ == "__main__":
    main(*sys.argv[1:])
