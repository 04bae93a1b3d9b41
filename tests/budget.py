"""Seconds that the tests of each room may take together, printed beside what they took."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

BUDGET = 180.0
"""Processor seconds of the quick tests of one room: 90 seconds of wall time on two workers."""


def seconds_by_room(durations: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Sum (node id, seconds) by the folder below tests/, the longest first."""
    total: dict[str, float] = defaultdict(float)
    for node, seconds in durations:
        parts = node.split("/")
        total[parts[1] if len(parts) > 2 else "tests"] += seconds
    return dict(sorted(total.items(), key=lambda item: -item[1]))


def lines(total: dict[str, float]) -> list[str]:
    """Return a line a room: its seconds, its budget, and a mark where it is over."""
    return [
        f"{room:12} {seconds:7.1f} s of {BUDGET:.0f}{'  over' * (seconds > BUDGET)}"
        for room, seconds in total.items()
    ]
