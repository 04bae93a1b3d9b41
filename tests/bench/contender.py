"""A contender's side of the step benchmark: a live process that makes one step for each line it reads."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

READY, SECONDS = "ready", "seconds "
"""Line that a contender prints after its first step, and beginning of each answer to a line that it reads."""


def answer_steps(step: Callable[[], object]) -> None:
    """Make a first step, which may compile, and print READY. Then make one for each line of the input, and
    print its seconds. `step` returns when its result is there."""
    step()
    print(READY, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        step()
        print(f"{SECONDS}{time.perf_counter() - start}", flush=True)
