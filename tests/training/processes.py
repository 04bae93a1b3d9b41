"""Real runs over several processes of this machine, as an engine starts them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.config.process_group import ProcessGroup, to_env
from harness.core.jax_setup.jax_variables import POOL_VARIABLE
from harness.records.paths import RunDir
from harness.records.run.status import read_status

PATIENCE = 300.0
"""Seconds after which a hanging run fails its test."""


def start(run: RunDir, count: int, **changes: Any) -> list[subprocess.Popen]:
    """The processes of a run, in their order; each speaks into `<run>.<index>.log`."""
    first = ProcessGroup(count, uuid.uuid4().hex, "127.0.0.1", join_timeout_seconds=120, **changes)
    return [_worker(run, to_env(replace(first, index=index)), index) for index in range(count)]


def start_alone(run: RunDir) -> subprocess.Popen:
    """One process that was told of no others, with all devices."""
    return _worker(run, {}, 0)


def train(run: RunDir, count: int) -> list[int]:
    """Exit statuses of the processes."""
    return ended(start(run, count))


def ended(workers: list[subprocess.Popen]) -> list[int]:
    """Exit statuses, as soon as all have one."""
    try:
        return [worker.wait(PATIENCE) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()


def wait_for(condition: Callable[[], bool], workers: list[subprocess.Popen]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        assert all(worker.poll() is None for worker in workers), "a worker ended too early"
        time.sleep(0.02)


def step_of(run: RunDir) -> int:
    return read_status(run).step


def on_one_core(*arguments: str) -> str:
    """What a Python of its own prints on the first core, which knows nothing of this one's devices."""
    return printed_by([*arguments], environment(), preexec_fn=lambda: os.sched_setaffinity(0, {0}))


def on_one_thread(*arguments: str) -> str:
    """What a Python of its own prints that computes on one thread of all cores, as one of many workers."""
    return printed_by([*arguments], environment() | {POOL_VARIABLE: "1"})


def printed_by(arguments: list[str], env: dict[str, str], **options: Any) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], env=env, capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def environment() -> dict[str, str]:
    """The environment without what this process was told of devices."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}


def _worker(run: RunDir, own: dict[str, str], index: int) -> subprocess.Popen:
    root = str(Path(__file__).parents[2])
    with Path(f"{run.path}.{index}.log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "harness.worker", str(run.path)],
            env=environment() | own | {"PYTHONPATH": root},
            stdout=log,
            stderr=log,
        )
