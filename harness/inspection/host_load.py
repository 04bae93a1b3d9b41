"""Load that other processes put on this machine: a timing pass must know whether it was alone."""

from __future__ import annotations

import os
import time
from pathlib import Path

_COUNTERS = Path("/proc/stat")
_IDLE_COLUMNS, _GUEST_COLUMNS = slice(3, 5), slice(8, None)
"""Idle time and waits for disks; time of guests, which user time holds already."""


class OtherLoad:
    """Load from its creation on. Time that a hypervisor takes away counts as load of others."""

    def __init__(self) -> None:
        self._start = _snapshot()

    def share(self) -> float | None:
        """Return the mean share of all CPUs that others kept busy; None if the system does not say."""
        end = _snapshot()
        if self._start is None or end is None or end[0] <= self._start[0]:
            return None
        seconds, busy = end[0] - self._start[0], end[1] - self._start[1]
        return max(0.0, busy / seconds / (os.cpu_count() or 1))


def _snapshot() -> tuple[float, float] | None:
    """Return the time and the CPU seconds that others have used so far."""
    try:
        columns = [int(text) for text in _COUNTERS.read_text().splitlines()[0].split()[1:]]
    except (OSError, ValueError, IndexError):
        return None
    idle, guests = sum(columns[_IDLE_COLUMNS]), sum(columns[_GUEST_COLUMNS])
    busy = (sum(columns) - idle - guests) / os.sysconf("SC_CLK_TCK")
    process = os.times()
    return time.perf_counter(), busy - process.user - process.system
