"""List scheduling of rectangles on contiguous devices.

A job is a block at a chosen width: its lanes lie side by side on one range and start together; each lane is
released when its own run ends. Whenever devices are released, the first waiting job that fits starts (Garey
and Graham, "Bounds for multiprocessor scheduling with resource constraints", 1975), on the smallest free
range that holds it. n jobs of K different widths cost O(n (K + log n)).
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from harness.core.device_pool import DevicePool

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
    pool, ends, now = DevicePool(devices), [], 0.0
    slots: dict[int, StartSlot] = {}
    while queues:
        if (index := _pop_first_fitting(queues, pool.largest_gap)) is None:
            now = _release_next(ends, pool)
            continue
        job = jobs[index]
        first = pool.allocate(job.devices)
        assert first is not None
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


def _release_next(ends: list[tuple[float, int, int]], pool: DevicePool) -> float:
    """Free the lanes that end next, and return when they end."""
    moment = ends[0][0]
    limit = moment * (1 + SAME_MOMENT)
    while ends and ends[0][0] <= limit:
        moment, first, width = heapq.heappop(ends)
        pool.free(first, width)
    return moment
