"""Pool of the devices of one process, allocated in contiguous ranges. Imports no JAX."""

from __future__ import annotations


class DevicePool:
    """Devices 0 to n - 1. A range is cut from the smallest gap that holds it, so that wide gaps last."""

    def __init__(self, devices: int) -> None:
        self._gaps = [(0, devices)] if devices else []
        """Free ranges [start, end), ascending, no two adjacent."""

    def allocate(self, devices: int) -> int | None:
        """Allocate a range of `devices` devices. Return its first device, or None if no gap is that wide."""
        fitting = [(end - start, start) for start, end in self._gaps if end - start >= devices]
        if not fitting:
            return None
        size, start = min(fitting)
        self._gaps.remove((start, start + size))
        self._add(start + devices, start + size)
        return start

    def free(self, first: int, devices: int) -> None:
        """Free a range. Raises ValueError if one of its devices is not allocated."""
        start, end = first, first + devices
        if any(start < other_end and other_start < end for other_start, other_end in self._gaps):
            raise ValueError(f"devices {start} to {end - 1} are not all allocated")
        for gap in [gap for gap in self._gaps if gap[1] == start or gap[0] == end]:
            self._gaps.remove(gap)
            start, end = min(start, gap[0]), max(end, gap[1])
        self._add(start, end)

    def _add(self, start: int, end: int) -> None:
        if start < end:
            self._gaps = sorted([*self._gaps, (start, end)])
