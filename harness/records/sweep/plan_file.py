"""Entries of `plan.json` that a plan writes and a report reads back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.core.interval import Interval


@dataclass(frozen=True)
class ChipShare:
    """The chips of one kind, and the runs that have them."""

    kind: str
    chip: str
    chips: int
    given: int
    """Number of chips that runs use at any one time."""
    runs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RunOnChips:
    """Planned run: its chips, the memory of its fullest device, and its days."""

    name: str
    kind: str
    """Kind of chips."""
    chips: int
    """Number of chips that the run has, in whole fast domains."""
    devices: int
    """Number of these chips that the layout uses; 0: the run fits nowhere."""
    memory: Mapping[str, Interval] = field(default_factory=dict)
    """Bytes of the fullest device, by part."""
    memory_limit: float | None = None
    """Bytes of a device that a plan may use; None: not known."""
    chip_memory: float | None = None
    """Bytes of a device; None: not known."""
    begins: float = 0.0
    """Days from the first run's start to this run's start; above 0 where runs share chips in rounds."""
    days: Interval | None = None
    """Days from start to end, interruptions and saves included; None: the run never ends."""
    verdict: str = ""
    """Reason why the run misses the plan, or the one way in which it can meet it; empty: it can."""
