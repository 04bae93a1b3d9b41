"""Speed of this machine from a calibration of half a second, for a launch that has no earlier run to go by.

Two speeds matter: arithmetic for the steps, and branching code over small objects for tracing and compiling.
Each is measured in CPU time on one core, as the best of many slices, so that neighbours, which are measured
apart (`harness.core.host.host_load`), do not count twice. NumPy is enough: the driver imports no JAX.
"""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from harness.core.cache.cache_entries import CacheEntry
from harness.core.errors import UserError
from harness.records.typed_values import parse_record

SECONDS_EACH = 0.25
"""CPU seconds for which each speed is measured."""
SHARE_SECONDS = 1.0
"""Seconds for which a thread is timed on a crowded machine, where its turns are some 50 ms apart."""
SIDE, BATCH = 64, 16
"""Side of the products, small enough for BLAS to compute them on one core, and their number in a slice."""
SOURCE = "\n".join(
    f"def f{i}(a, b={i}):\n    return [a * x + b for x in range({i}) if x % 3]" for i in range(40)
)
"""Text that Python compiles, which takes much the same kind of code as other compilers do."""
LEAST_SHARE = 1e-3
"""Least share of a core that is told: less is a clock that did not move."""
_BUSY_LOOP = """
import sys, time
start, cpu_start = time.perf_counter(), time.process_time()
while time.perf_counter() - start < float(sys.argv[1]):
    pass
print((time.process_time() - cpu_start) / (time.perf_counter() - start))
"""
_SPEED = CacheEntry("cost", "machine_speed", {})


@dataclass(frozen=True)
class MachineSpeed:
    """Speeds of one core."""

    arithmetic: float
    """FLOP/s of small float32 products, each followed by elementwise functions."""
    compiling: float
    """Compilations of SOURCE in a second."""

    def over(self, reference: MachineSpeed) -> MachineSpeed:
        """Return the speeds as multiples of those of another machine."""
        return MachineSpeed(self.arithmetic / reference.arithmetic, self.compiling / reference.compiling)


def machine_speed(kind: str) -> MachineSpeed:
    """Return the speed of this machine, measured once for its `kind` and then read from the cache."""
    content = _SPEED.read_json()
    entries = content if isinstance(content, dict) else {}
    if (stored := parse_record(MachineSpeed, entries.get(kind))) is not None:
        return stored
    speed = measure_machine()
    with contextlib.suppress(OSError, UserError):  # then it is measured again next time
        _SPEED.write_json(entries | {kind: dataclasses.asdict(speed)})
    return speed


def measure_machine(seconds: float = SECONDS_EACH) -> MachineSpeed:
    """Measure both speeds, for so many CPU seconds each."""
    left, right = np.random.default_rng(0).random((2, BATCH, SIDE, SIDE), np.float32)
    out = np.empty_like(left)

    def multiply() -> None:
        np.matmul(left, right, out=out)
        np.exp(np.negative(out, out=out), out=out)

    def compile_source() -> None:
        compile(SOURCE, "<calibration>", "exec")

    flops = 2 * BATCH * SIDE**3
    return MachineSpeed(flops / _best_seconds(multiply, seconds), 1 / _best_seconds(compile_source, seconds))


def share_of_a_core(seconds: float = SHARE_SECONDS) -> float:
    """Return the share of a core that a process gets which computes for so many seconds beside whatever else
    runs on this machine. It has a session of its own, as workers have: Linux shares its cores among these."""
    command = [sys.executable, "-I", "-S", "-c", _BUSY_LOOP, str(seconds)]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, start_new_session=True, check=True)
        return min(1.0, max(LEAST_SHARE, float(answer.stdout)))
    except (OSError, ValueError, subprocess.CalledProcessError):
        return 1.0


def _best_seconds(work: Callable[[], None], seconds: float) -> float:
    """Return the CPU seconds of the fastest call within so many CPU seconds."""
    best, end = float("inf"), time.thread_time() + seconds
    while (start := time.thread_time()) < end:
        work()
        best = min(best, time.thread_time() - start)
    return best
