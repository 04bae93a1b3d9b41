"""Memory of this machine that this process may use. Imports no JAX."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


def memory_limit(root: Path = ROOT) -> float:
    """Return bytes of the machine, or the limit of this process's control group (v1, v2) if lower."""
    return min([_meminfo(root, "MemTotal"), *(limit for limit, _ in _control_groups(root))])


def free_memory(root: Path = ROOT) -> float:
    """Return bytes available now, by the kernel or a control group; inactive page cache counts as free."""
    return max(
        0.0, min([_meminfo(root, "MemAvailable"), *(limit - used for limit, used in _control_groups(root))])
    )


def resident_memory(root: Path = ROOT) -> float:
    """Return bytes of this process in memory; 0 if unknown."""
    try:
        pages = int((root / "proc/self/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return float(pages * os.sysconf("SC_PAGE_SIZE"))


def _meminfo(root: Path, name: str) -> float:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return math.inf  # not Linux: unknown, so nothing is refused
    values = (float(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
    return next(values, math.inf)


def _control_groups(root: Path) -> Iterator[tuple[float, float]]:
    """Yield (limit, usage) in bytes of each control group around this process that has a limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            top = root / "sys/fs/cgroup" / controllers
            names = ("memory.max", "memory.current")
            if controllers:
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
            inner = Path(path.lstrip("/"))
            for part in (inner, *inner.parents):
                yield from _read_group(top / part, *names)


def _read_group(folder: Path, limit: str, use: str) -> Iterator[tuple[float, float]]:
    try:
        limited, used = float((folder / limit).read_text()), float((folder / use).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # not mounted here, or "max": no limit
        return
    yield limited, used - float(stat.get("total_inactive_file") or stat.get("inactive_file") or 0)
