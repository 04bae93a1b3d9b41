"""Pool of numbered devices, allocated in contiguous ranges."""

from __future__ import annotations

from bisect import bisect_left, insort


class DevicePool:
    """Devices 0 to n - 1. A range is cut from the smallest gap that holds it, so that wide gaps last."""

    def __init__(self, devices: int) -> None:
        self._end_of: dict[int, int] = {}
        """End (exclusive) of each gap by its start; no two gaps are adjacent."""
        self._starts: list[int] = []
        self._sizes: list[tuple[int, int]] = []
        """Size and start of each gap, ascending."""
        if devices:
            self._add(0, devices)

    @property
    def largest_gap(self) -> int:
        """Number of devices of the widest gap."""
        return self._sizes[-1][0] if self._sizes else 0

    def allocate(self, devices: int) -> int | None:
        """Allocate a range of `devices` devices. Return its first device, or None if no gap is that wide."""
        position = bisect_left(self._sizes, (devices, 0))
        if position == len(self._sizes):
            return None
        size, start = self._sizes[position]
        self._remove(start)
        if size > devices:
            self._add(start + devices, start + size)
        return start

    def free(self, first: int, devices: int) -> None:
        """Free a range. Raises ValueError if one of its devices is not allocated."""
        start, end = first, first + devices
        position = bisect_left(self._starts, start)
        before = self._starts[max(0, position - 1) : position]
        after = self._starts[position : position + 1]
        if any(self._end_of[gap] > start for gap in before) or any(gap < end for gap in after):
            raise ValueError(f"devices {start} to {end - 1} are not all allocated")
        if before and self._end_of[before[0]] == start:
            start = before[0]
            self._remove(start)
        if after and after[0] == end:
            end = self._remove(end)
        self._add(start, end)

    def _add(self, start: int, end: int) -> None:
        self._end_of[start] = end
        insort(self._starts, start)
        insort(self._sizes, (end - start, start))

    def _remove(self, start: int) -> int:
        """Remove the gap at `start` and return its end."""
        end = self._end_of.pop(start)
        del self._starts[bisect_left(self._starts, start)]
        del self._sizes[bisect_left(self._sizes, (end - start, start))]
        return end
