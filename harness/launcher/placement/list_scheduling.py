"""List scheduling of rectangles on contiguous devices.

A job is a block at a chosen width: its lanes lie side by side on one range and start together; each lane is
released when its own run ends. Whenever devices are released, the first waiting job that fits starts (Garey
and Graham, "Bounds for multiprocessor scheduling with resource constraints", 1975), on the smallest free
range that holds it. n jobs of K different widths cost O(n (K + log n)).
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

SAME_MOMENT = 1e-9
"""Largest distance of two ends, relative to the time passed, that count as one moment: sums of floats differ
where the true times are equal, and a wide job waits for several ends."""


@dataclass(frozen=True)
class BlockJob:
    """A block at one width."""

    width: int
    """Devices of each lane."""
    seconds: tuple[float, ...]
    """Seconds of each lane, in their order on the range."""

    @property
    def devices(self) -> int:
        """Devices of all lanes."""
        return self.width * len(self.seconds)


@dataclass(frozen=True)
class StartSlot:
    """Start of a job, in seconds from the start of the sweep, and its first device."""

    start: float
    first_device: int


def pack(devices: int, jobs: Sequence[BlockJob]) -> list[StartSlot]:
    """Return a slot for each job; earlier jobs are preferred. No job may need more than `devices`."""
    queues: dict[int, deque[int]] = {}
    for index, job in enumerate(jobs):
        queues.setdefault(job.devices, deque()).append(index)
    ranges, ends, now = _FreeRanges(devices), [], 0.0
    slots: dict[int, StartSlot] = {}
    while queues:
        if (index := _pop_first_fitting(queues, ranges.largest)) is None:
            now = _release_next(ends, ranges)
            continue
        job = jobs[index]
        first = ranges.allocate(job.devices)
        slots[index] = StartSlot(now, first)
        for lane, seconds in enumerate(job.seconds):
            heapq.heappush(ends, (now + seconds, first + lane * job.width, job.width))
    return [slots[index] for index in range(len(jobs))]


def _pop_first_fitting(queues: dict[int, deque[int]], largest: int) -> int | None:
    """Remove and return the first job that needs at most `largest` devices; None if there is none. `queues`:
    positions of the waiting jobs, by the number of devices that they need."""
    heads = [(queue[0], need) for need, queue in queues.items() if need <= largest]
    if not heads:
        return None
    index, need = min(heads)
    queues[need].popleft()
    if not queues[need]:
        del queues[need]
    return index


def _release_next(ends: list[tuple[float, int, int]], ranges: _FreeRanges) -> float:
    """Free the lanes that end next, and return when they end."""
    moment = ends[0][0]
    limit = moment * (1 + SAME_MOMENT)
    while ends and ends[0][0] <= limit:
        moment, first, width = heapq.heappop(ends)
        ranges.free(first, first + width)
    return moment


class _FreeRanges:
    """Free ranges of devices; adjacent ones are joined."""

    def __init__(self, devices: int) -> None:
        self._end_of, self._start_of = {0: devices}, {devices: 0}
        self._sizes = [(devices, 0)]

    @property
    def largest(self) -> int:
        """Size of the largest free range."""
        return self._sizes[-1][0] if self._sizes else 0

    def allocate(self, devices: int) -> int:
        """Take `devices` from the smallest range that holds them, and return the first. One must exist."""
        size, start = self._sizes[bisect_left(self._sizes, (devices, 0))]
        self._remove(start, start + size)
        if size > devices:
            self._add(start + devices, start + size)
        return start

    def free(self, start: int, end: int) -> None:
        """Return the devices from `start` up to `end`, exclusive."""
        if start in self._start_of:
            before = self._start_of[start]
            self._remove(before, start)
            start = before
        if end in self._end_of:
            after = self._end_of[end]
            self._remove(end, after)
            end = after
        self._add(start, end)

    def _add(self, start: int, end: int) -> None:
        self._end_of[start], self._start_of[end] = end, start
        insort(self._sizes, (end - start, start))

    def _remove(self, start: int, end: int) -> None:
        del self._end_of[start], self._start_of[end]
        del self._sizes[bisect_left(self._sizes, (end - start, start))]
