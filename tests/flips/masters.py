"""The sweeps that bits are flipped in: trained once, small, and with every kind of file between them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from harness.records.paths import NOISE_FLOORS, SweepDir

CALL = "import sys; from harness.cli import main; sys.exit(main())"
PATIENCE = 300.0
"""Seconds after which a command hangs."""
_TINY = (
    *("scale=xs", "model.width=4", "model.layers=1", "model.heads=1", "model.head_width=4"),
    *("scale.parameters=180", "scale.batch=4", "scale.tokens=7680", "data.sequence_length=32"),
    *("evaluation.points=2", "evaluation.tokens=256", "checkpoint.every=20"),
)
_LOOKS = ("schedule=looks", "schedule.branches=[0.5]", "rule.stopping=looks")
_PAIR = (*_TINY, *_LOOKS, "variant=mha,short", "seed=0,1")
_SHUT_OFF = ("XLA_FLAGS", "PYTHONPATH", "COLUMNS")


@dataclass(frozen=True)
class Master:
    """A sweep below `runs/`, and the command that trained it and continues it."""

    name: str
    arguments: tuple[str, ...]
    beside: tuple[str, ...] = ()
    """Files beside the sweep that it reads, from `runs/`."""

    def sweep(self, folder: Path) -> SweepDir:
        return SweepDir(folder / "runs" / self.name)


NULL = Master("null", ("experiment=null", *_TINY, "variant=mha,twin", "seed=0,1,2,3"))
"""It measures the noise floor that the pair's intervals use."""
PAIR = Master(
    "pair",
    ("experiment_name=pair", *_PAIR, "gate=promote", "tune=lr", "tune.points=3"),
    (f"null/{NOISE_FLOORS}",),
)
HALF = Master("half", ("experiment_name=half", *_PAIR, "checkpoint.every=2"))
"""Interrupted on its way to its look, after the first checkpoint."""
IMAGES = Master(
    "images",
    (
        *("experiment=imagine", "experiment_name=images", "scale=image_xs", "scale.tokens=15680"),
        *("variant=in_context,adaptive_norm", "seed=0", "evaluation.points=2", "checkpoint.every=10"),
        *_LOOKS,
        "profile=steps",
    ),
)
FRESH = Master("fresh", ("experiment_name=fresh", *_TINY, *_LOOKS, "variant=mha,short", "seed=0"))
"""Trained once into the cache, and again from it."""
STARTED = "fresh.started"
"""File whose time tells which entries of the cache FRESH used."""
PLAN = (*FRESH.arguments, "--compile", "abstract")
MASTERS = (NULL, PAIR, IMAGES, HALF)


def train_masters(folder: Path) -> None:
    """Train every master below `folder` that is not there yet."""
    for master in MASTERS:
        if not (folder / f"{master.name}.trained").exists():
            print(f"training {master.name}", flush=True)
            _interrupt(folder, master) if master is HALF else _train(folder, master)
            (folder / f"{master.name}.trained").touch()
    if not (folder / f"{NULL.name}.zip").exists():
        _fill_cache(folder)


def command_env() -> dict[str, str]:
    """The environment of a command: wide enough that no sentence is wrapped."""
    env = {key: value for key, value in os.environ.items() if key not in _SHUT_OFF}
    return env | {"COLUMNS": "1000", "PYTHONPATH": str(Path(__file__).parents[2])}


def _fill_cache(folder: Path) -> None:
    """Leave in the cache what a plan, a sweep of its own and a sweep behind a URL leave there."""
    (folder / STARTED).touch()
    _train(folder, FRESH)
    shutil.make_archive(str(folder / NULL.name), "zip", folder, f"runs/{NULL.name}")
    for line in (command("plan", *PLAN), command("compare", f"zip://runs/{NULL.name}::{NULL.name}.zip")):
        subprocess.run(line, cwd=folder, env=command_env(), check=True, stdout=subprocess.DEVNULL)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", CALL, *arguments]


def _train(folder: Path, master: Master) -> None:
    line = command("sweep", *master.arguments)
    subprocess.run(line, cwd=folder, env=command_env(), check=True, stdout=subprocess.DEVNULL, timeout=900)


def _interrupt(folder: Path, master: Master) -> None:
    """Stop the sweep before its look, and again from the start where that came too late."""
    sweep = master.sweep(folder)
    while not [*sweep.path.glob("*/*/*/goal.json")]:
        shutil.rmtree(sweep.path, ignore_errors=True)
        line = command("sweep", *master.arguments)
        driver = subprocess.Popen(line, cwd=folder, env=command_env(), stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE
        while not [*sweep.path.glob("*/*/*/checkpoints/*.manifest.json")] and driver.poll() is None:
            assert time.monotonic() < deadline, "no run came to its first checkpoint"
            time.sleep(0.002)
        driver.send_signal(signal.SIGINT)
        driver.wait(PATIENCE)
