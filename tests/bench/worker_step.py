"""A run as the worker trains it, step by step on request: `python -m tests.bench.worker_step RUN_DIR`.

This is `python -m harness.worker RUN_DIR` itself; only the call that dispatches a step waits for a line. The
seconds of a step therefore hold everything that the loop does between two dispatches: the next batch is read
and put on the devices, the metrics of the step before are fetched and written. A line asks for a step, and is
answered once the step's state and metrics are there.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import jax

from harness.training.programs.run_programs import RunPrograms
from harness.worker import main as worker
from tests.bench.contender import READY, SECONDS


def on_request(step: Callable[..., Any]) -> Callable[..., Any]:
    """Return `step`, but each call except the first waits for a line. The process ends with its input."""
    result: Any = None
    start: float | None = None

    @functools.wraps(step)
    def wait_and_step(*arguments: Any) -> Any:
        nonlocal result, start
        if result is not None:
            jax.block_until_ready(result)
            print(READY if start is None else f"{SECONDS}{time.perf_counter() - start}", flush=True)
            if not sys.stdin.readline():
                os._exit(0)
            start = time.perf_counter()
        result = step(*arguments)
        return result

    return wait_and_step


if __name__ == "__main__":
    RunPrograms.step = on_request(RunPrograms.step)
    sys.exit(worker.command(sys.argv[1:]))
