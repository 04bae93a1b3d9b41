"""Protocol between the mirror of a sweep and the packages of trackers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

AXES = ("tokens", "flops", "device_seconds")
"""Names of the values of a point, besides its step, over which curves are drawn."""


class TrackerError(Exception):
    """A tracker did not take what it was sent. The message says why."""


class RunEnd(Enum):
    """End of a run as trackers tell them apart."""

    unfinished = "unfinished"
    finished = "finished"
    failed = "failed"


@dataclass(frozen=True)
class TrackedRun:
    """Labels of a run in a tracker."""

    id: str
    """Letters and digits, unique among all sweeps."""
    name: str
    """Scale, variant and seed, such as `xs/mha/seed0`."""
    group: str
    """Block, such as `xs/seed0`: the runs that are compared with each other."""
    job_type: str
    """Role in the comparison, such as `control`."""
    config: Mapping[str, Any]
    """Resolved config, plain containers."""
    started: float = 0.0
    """UTC seconds from which the device-seconds of its points count."""


@dataclass(frozen=True)
class Point:
    """Values at a step, with those of AXES that are known there."""

    step: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class Position:
    """Record of what a run was sent so far."""

    step: int = -1
    """Last step; -1: nothing."""
    is_exact: bool = True
    """False if a process died while it sent points beyond `step`."""


class TrackerRun(Protocol):
    """Run that is open in a tracker."""

    last_step: int
    """Last step that the tracker holds when the run is opened; -1: none."""

    def log(self, points: Sequence[Point]) -> None:
        """Send points beyond `last_step`, in the order of their steps."""
        ...

    def attach(self, files: Sequence[Path]) -> None:
        """Send files: pages, pictures, JSON."""
        ...

    def close(self, summary: Mapping[str, Any], end: RunEnd) -> None:
        """Send the summary, and return once the tracker holds everything. The run can be opened again."""
        ...


class TrackerBackend(Protocol):
    """Tracker that holds the runs of a sweep."""

    def open_run(self, run: TrackedRun, position: Position) -> TrackerRun:
        """Create a run, or continue the one that has its id."""
        ...

    def close(self) -> None:
        """Release what the backend holds besides its runs."""
        ...
