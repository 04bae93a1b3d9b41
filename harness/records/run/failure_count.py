"""How often a run failed without getting further: what its worker and its driver both count."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class FailureCount:
    """Failures of a run in a row in which it got no further than before."""

    count: int = 0
    furthest: int = -1

    def record_failure(self, step: int, times: int = 1) -> int:
        """The count after a failure at this step; `times`: how often it failed since the last one counted."""
        self.count = 1 if step > self.furthest >= 0 else self.count + times
        self.furthest = max(self.furthest, step)
        return self.count
