"""Load that other processes put on this machine: whatever is timed beside them is slower than alone."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import NamedTuple

_COUNTERS, _PROCESSES = Path("/proc/stat"), Path("/proc")
_IDLE_COLUMNS, _GUEST_COLUMNS = slice(3, 5), slice(8, None)
"""Idle time and waits for disks; time of guests, which user time holds already."""
_CPU_TIMES = slice(11, 15)
"""User and system time of a process and of its children that ended, after its name in its stat file."""
SECONDS_BETWEEN_SAMPLES = 5.0


class OtherLoad:
    """Load from its creation on. This process and those that it started do not count; time that a hypervisor
    takes away does."""

    def __init__(self) -> None:
        self._start = _sample()

    def share(self) -> float | None:
        """Return the mean share of all CPUs that others kept busy; None if the system does not say."""
        return _share_between(self._start, _sample())


class LoadHistory:
    """Load of others over time, sampled by a thread while the block runs that it is the context of."""

    def __init__(self, seconds: float = SECONDS_BETWEEN_SAMPLES) -> None:
        self._seconds, self._stop = seconds, Event()
        self._samples: list[tuple[float, _LoadSample | None]] = []
        self._thread = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> LoadHistory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self._samples.append((time.time(), _sample()))
            if self._stop.is_set():
                return
            self._stop.wait(self._seconds)

    def share(self, start: float, end: float) -> float | None:
        """Return the mean share of all CPUs that others kept busy from `start` to `end`, in UTC seconds, from
        the samples around them; None if the system does not say."""
        times = [moment for moment, _ in self._samples]
        first = max((i for i, moment in enumerate(times) if moment <= start), default=0)
        last = min((i for i, moment in enumerate(times) if moment >= end), default=len(times) - 1)
        return _share_between(self._samples[first][1], self._samples[last][1]) if times else None


class _LoadSample(NamedTuple):
    """Time, and the CPU seconds that others have used so far."""

    moment: float
    busy: float


def _share_between(start: _LoadSample | None, end: _LoadSample | None) -> float | None:
    if start is None or end is None or end.moment <= start.moment:
        return None
    return max(0.0, (end.busy - start.busy) / (end.moment - start.moment) / (os.cpu_count() or 1))


def _sample() -> _LoadSample | None:
    try:
        columns = [int(text) for text in _COUNTERS.read_text().splitlines()[0].split()[1:]]
    except (OSError, ValueError, IndexError):
        return None
    idle, guests = sum(columns[_IDLE_COLUMNS]), sum(columns[_GUEST_COLUMNS])
    busy = (sum(columns) - idle - guests) / os.sysconf("SC_CLK_TCK")
    return _LoadSample(
        time.perf_counter(), busy - sum(os.times()[:4]) - _seconds_of(_descendants([os.getpid()]))
    )


def _descendants(parents: Sequence[int]) -> list[int]:
    """Return the ids of all live processes below these; empty if the system does not list children."""
    children = [child for parent in parents for child in _children(parent)]
    return [*children, *_descendants(children)] if children else []


def _children(process: int) -> Iterator[int]:
    for path in (_PROCESSES / str(process)).glob("task/*/children"):
        try:
            yield from map(int, path.read_text().split())
        except OSError:  # it has ended
            continue


def _seconds_of(processes: Sequence[int]) -> float:
    """Return the CPU seconds of these processes and of their children that ended."""
    ticks = 0
    for process in processes:
        try:
            fields = (_PROCESSES / str(process) / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[_CPU_TIMES]))
    return ticks / os.sysconf("SC_CLK_TCK")
