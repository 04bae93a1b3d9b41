"""What was spent on each run of a sweep, and whether another worker is worth it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.config.schema.engine import EngineConfig
from harness.launcher.runs import Run
from harness.records.run.failure_count import Attempts
from harness.records.run.status import State, Status, read_status

IDLE = 2
"""Workers in a row that are told to leave before they made a step: the next one would be too."""
UNHURT = (State.preempted, State.pending)
"""A run that left, or never began, failed at nothing."""


@dataclass
class Tries:
    """Of all runs, by name."""

    settings: EngineConfig
    _attempts: dict[str, Attempts] = field(default_factory=dict)
    _begun: dict[str, int] = field(default_factory=dict)
    """How many attempts were made before its worker took it on."""
    _idle: dict[str, int] = field(default_factory=dict)
    """How many workers in a row left before they made a step."""

    def begin(self, runs: Sequence[Run]) -> None:
        """A worker takes them on."""
        for run in runs:
            self._begun[run.name] = read_status(run.dir).attempt

    def worth_another(self, run: Run, status: Status) -> bool:
        """After its worker ended; counts the attempt, if it was one."""
        if status.state in UNHURT:
            return True
        # Of several processes, none starts anything again alone.
        again = (State.lost,) if self.settings.processes == 1 else (State.lost, State.failed, State.oom)
        return status.state in again and self._failed(run, status) < self.settings.attempts

    def gets_nowhere(self, run: Run, idle: bool) -> bool:
        """Whether its worker left again before it had made a step. `idle`: no run of that worker made one;
        they may have had their turns."""
        self._idle[run.name] = self._idle.get(run.name, 0) + 1 if idle else 0
        return self._idle[run.name] >= IDLE

    def failures(self, run: Run) -> int:
        """In a row."""
        return self._attempts.get(run.name, Attempts()).count

    def _failed(self, run: Run, status: Status) -> int:
        """In a row, with those that its worker saw before it was lost."""
        made = max(1, status.attempt - self._begun.get(run.name, status.attempt))
        return self._attempts.setdefault(run.name, Attempts()).failed_at(status.step, made)


def steps_of(runs: Sequence[Run]) -> int:
    """That they stand at, their branches too."""
    return sum(read_status(each).step for run in runs for each in (run.dir, *run.dir.branches()))


def no_time(settings: EngineConfig) -> str:
    """One sentence for a run whose workers are told to leave before they made a step."""
    said = f"told to leave {IDLE} times in a row before it had made a step"
    if settings.name == "slurm":
        limit = settings.slurm.time_limit or "null"
        return (
            f"engine.slurm.time_limit={limit}: {said} (engine.slurm.save_seconds="
            f"{settings.slurm.save_seconds} before the limit); give it a longer time_limit"
        )
    return f"engine.name={settings.name}: {said}; see to it that its workers are left more time"
