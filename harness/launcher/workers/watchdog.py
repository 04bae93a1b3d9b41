"""Whether a worker still makes progress, on the reader's own clock."""

from __future__ import annotations

from collections.abc import Sequence

from harness.records.paths import RunDir
from harness.records.run.status import State, Status

LONGEST_TICK = 10.0
"""A reader that was itself stopped for an hour has not watched for an hour."""

AT_WORK = (State.pending, State.running)


class Watchdog:
    """Counts for how long a run showed no sign of life. Clocks of other hosts play no part."""

    def __init__(self, now: float) -> None:
        self._now = now
        self._seen: dict[RunDir, tuple] = {}
        self._silent: dict[RunDir, float] = {}

    def look(self, statuses: Sequence[tuple[RunDir, Status]], now: float) -> None:
        passed, self._now = min(now - self._now, LONGEST_TICK), now
        running = any(status.state is State.running for _, status in statuses)
        counted = (State.running,) if running else AT_WORK  # beside a lane at work, others wait their turn
        for run, status in statuses:
            sign = (status.state, status.progress, status.step, status.phase, status.attempt)
            still = self._seen.get(run) == sign and status.state in counted
            self._silent[run] = self._silent.get(run, 0.0) + passed if still else 0.0
            self._seen[run] = sign

    def silent(self) -> float:
        """Seconds for which the quietest run that is at work has shown nothing."""
        return max(self._silent.values(), default=0.0)
