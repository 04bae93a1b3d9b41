"""Detection of stalled workers, on the driver's own clock."""

from __future__ import annotations

from collections.abc import Sequence

from harness.records.paths import RunDir
from harness.records.run.status import State, Status

MAX_TICK_SECONDS = 10.0
"""Maximum seconds that count between two updates: a driver that was stopped for an hour saw nothing."""

ACTIVE_STATES = (State.pending, State.running)


class Watchdog:
    """Counter of the seconds without a sign of life, per run. It never uses the clock of another host."""

    def __init__(self, now: float) -> None:
        self._now = now
        self._last_signs: dict[RunDir, tuple] = {}
        self._silent: dict[RunDir, float] = {}

    def update(self, statuses: Sequence[tuple[RunDir, Status]], now: float) -> None:
        """Count the time since the last update for each unchanged run. `now`: seconds on any one clock."""
        elapsed, self._now = min(now - self._now, MAX_TICK_SECONDS), now
        running = any(status.state is State.running for _, status in statuses)
        counted_states = (State.running,) if running else ACTIVE_STATES  # pending runs wait for these
        for run, status in statuses:
            signs = (status.state, status.progress, status.step, status.phase, status.attempt)
            is_silent = self._last_signs.get(run) == signs and status.state in counted_states
            self._silent[run] = self._silent.get(run, 0.0) + elapsed if is_silent else 0.0
            self._last_signs[run] = signs

    def silent_seconds(self) -> float:
        """Return the seconds for which the most silent active run has shown no sign of life."""
        return max(self._silent.values(), default=0.0)
