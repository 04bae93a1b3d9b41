"""List scheduling of rectangles that lie on contiguous devices.

A job is a block at a chosen width: its lanes side by side on one range, starting together, each
left free as its own run ends. At every moment at which devices come free, the first waiting job that fits
starts (Garey and Graham, "Bounds for multiprocessor scheduling with resource constraints", 1975),
on the smallest free range that holds it. n jobs of K different widths cost O(n (K + log n)).
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

SAME_MOMENT = 1e-9
"""Ends that lie no further apart, relative to the time passed, are one moment: sums of floats are not
equal where the times that they stand for are, and a wide job waits for several ends."""


@dataclass(frozen=True)
class BlockJob:
    """A block at one width."""

    width: int
    """Devices of each lane."""
    seconds: tuple[float, ...]
    """By lane, in their order on the range."""

    @property
    def devices(self) -> int:
        return self.width * len(self.seconds)


@dataclass(frozen=True)
class StartSlot:
    """Where a job begins: seconds from the start of the sweep, and its first device."""

    start: float
    first_device: int


def pack(devices: int, jobs: Sequence[BlockJob]) -> list[StartSlot]:
    """A spot for each job, those that stand first preferred. No job may need more than `devices`."""
    waiting = _by_need(jobs)
    free, ends, now = _FreeRanges(devices), [], 0.0
    spots: dict[int, StartSlot] = {}
    while waiting:
        if (index := _next(waiting, free.largest)) is None:
            now = _release(ends, free)
            continue
        job = jobs[index]
        first = free.allocate(job.devices)
        spots[index] = StartSlot(now, first)
        for lane, seconds in enumerate(job.seconds):
            heapq.heappush(ends, (now + seconds, first + lane * job.width, job.width))
    return [spots[index] for index in range(len(jobs))]


def _by_need(jobs: Sequence[BlockJob]) -> dict[int, deque[int]]:
    """Positions of the jobs by the devices that they need."""
    queues: dict[int, deque[int]] = {}
    for index, job in enumerate(jobs):
        queues.setdefault(job.devices, deque()).append(index)
    return queues


def _next(waiting: dict[int, deque[int]], room: int) -> int | None:
    """Take the first job in line that fits; None where none does."""
    heads = [(queue[0], need) for need, queue in waiting.items() if need <= room]
    if not heads:
        return None
    index, need = min(heads)
    waiting[need].popleft()
    if not waiting[need]:
        del waiting[need]
    return index


def _release(ends: list[tuple[float, int, int]], free: _FreeRanges) -> float:
    """Give back the lanes that end next; returns when."""
    moment = ends[0][0]
    limit = moment * (1 + SAME_MOMENT)
    while ends and ends[0][0] <= limit:
        moment, first, width = heapq.heappop(ends)
        free.free(first, first + width)
    return moment


class _FreeRanges:
    """Free ranges of devices, adjacent ones joined."""

    def __init__(self, devices: int) -> None:
        self._end_of, self._start_of = {0: devices}, {devices: 0}
        self._sizes = [(devices, 0)]

    @property
    def largest(self) -> int:
        return self._sizes[-1][0] if self._sizes else 0

    def allocate(self, devices: int) -> int:
        """The first device of the smallest range that holds so many, which must exist."""
        size, start = self._sizes[bisect_left(self._sizes, (devices, 0))]
        self._remove(start, start + size)
        if size > devices:
            self._add(start + devices, start + size)
        return start

    def free(self, start: int, end: int) -> None:
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
