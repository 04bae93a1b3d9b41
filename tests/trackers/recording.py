"""A tracker that keeps what it is sent in memory, and fails where a test says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.trackers.tracker_api import Point, Position, RunEnd, TrackedRun


class Outage(Exception):
    """The failure that a test asked for."""


@dataclass
class StoredRun:
    labels: TrackedRun
    points: list[Point] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    ends: list[RunEnd] = field(default_factory=list)
    files: list[str] = field(default_factory=list)

    @property
    def last_step(self) -> int:
        return self.points[-1].step if self.points else -1


@dataclass
class Store:
    """What the tracker holds, whatever process asks."""

    runs: dict[str, StoredRun] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    """Names of runs that cannot be opened."""
    points_left: float = float("inf")
    """Points until the outage, which may come in the middle of a call."""

    def named(self, name: str) -> StoredRun:
        [run] = [run for run in self.runs.values() if run.labels.name == name]
        return run

    def names(self) -> set[str]:
        return {run.labels.name for run in self.runs.values()}


@dataclass
class RecordingRun:
    store: Store
    run: StoredRun
    last_step: int

    def log(self, points: Sequence[Point]) -> None:
        for point in points:
            if self.store.points_left <= 0:
                raise Outage("the tracker is gone")
            self.store.points_left -= 1
            self.run.points.append(point)

    def attach(self, files: Sequence[Path]) -> None:
        self.run.files += [path.name for path in files]

    def close(self, summary: Mapping[str, Any], end: RunEnd) -> None:
        self.run.summary |= summary
        self.run.ends.append(end)


@dataclass
class RecordingBackend:
    store: Store

    def open_run(self, run: TrackedRun, position: Position) -> RecordingRun:
        if run.name in self.store.broken:
            raise Outage(f"{run.name} is refused")
        stored = self.store.runs.setdefault(run.id, StoredRun(run))
        return RecordingRun(self.store, stored, stored.last_step)

    def close(self) -> None:
        pass
