"""Failures of workers: detected stalls, counted failures, and whether a run gets another worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.config.schema.engine import EngineConfig
from harness.launcher.runs import Run
from harness.records.paths import RunDir
from harness.records.run.failure_count import FailureCount
from harness.records.run.status import State, Status, read_status

MAX_IDLE_WORKERS = 2
"""Number of workers in a row that must exit before their first step, after which a run is given up."""
NOT_A_FAILURE = (State.preempted, State.pending)
"""States of runs that stopped on request or never started: no attempt is counted."""
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


@dataclass
class RetryPolicy:
    """Failures of all runs, by name."""

    settings: EngineConfig
    _attempts: dict[str, FailureCount] = field(default_factory=dict)
    _attempts_before: dict[str, int] = field(default_factory=dict)
    """Number of attempts before the current worker started."""
    _idle_workers: dict[str, int] = field(default_factory=dict)
    """Number of workers in a row that exited before their first step."""

    def begin(self, runs: Sequence[Run]) -> None:
        """Note the attempts so far when a worker starts with these runs."""
        for run in runs:
            self._attempts_before[run.name] = read_status(run.dir).attempt

    def should_retry(self, run: Run, status: Status) -> bool:
        """Return whether a run gets another worker. Counts the attempts of a lost worker."""
        if status.state in NOT_A_FAILURE:
            return True
        # In a group of processes, no process can restart a run alone.
        states = (State.lost,) if self.settings.processes == 1 else (State.lost, State.failed, State.oom)
        if status.state not in states:
            return False
        attempts = max(1, status.attempt - self._attempts_before.get(run.name, status.attempt))
        failures = self._attempts.setdefault(run.name, FailureCount())
        return failures.record_failure(status.step, attempts) < self.settings.attempts

    def makes_no_progress(self, run: Run, idle: bool) -> bool:
        """Count a worker that was told to exit; return whether too many in a row made no step. `idle`: no run
        of the worker made a step."""
        self._idle_workers[run.name] = self._idle_workers.get(run.name, 0) + 1 if idle else 0
        return self._idle_workers[run.name] >= MAX_IDLE_WORKERS

    def failure_count(self, run: Run) -> int:
        """Return the failures in a row."""
        return self._attempts.get(run.name, FailureCount()).count


def total_steps(runs: Sequence[Run]) -> int:
    """Return the total steps reached by these runs, branches included."""
    return sum(read_status(directory).step for run in runs for directory in (run.dir, *run.dir.branches()))


def no_progress_message(settings: EngineConfig) -> str:
    """Explain that a run was given up because its workers had to exit before their first step."""
    problem = f"told to leave {MAX_IDLE_WORKERS} times in a row before it had made a step"
    if settings.name == "slurm":
        limit = settings.slurm.time_limit or "null"
        return (
            f"engine.slurm.time_limit={limit}: {problem} (engine.slurm.save_seconds="
            f"{settings.slurm.save_seconds} before the limit). Set a longer time_limit"
        )
    return f"engine.name={settings.name}: {problem}. Give its workers more time"
