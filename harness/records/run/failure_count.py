"""Count of failures without progress, kept by the worker and by the driver."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class FailureCount:
    """Number of consecutive failures of a run that did not get beyond the furthest step."""

    count: int = 0
    furthest: int = -1

    def record_failure(self, step: int, times: int = 1) -> int:
        """Add `times` failures at a step and return the count, which starts over after progress."""
        self.count = 1 if step > self.furthest >= 0 else self.count + times
        self.furthest = max(self.furthest, step)
        return self.count
