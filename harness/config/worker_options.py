"""What a command asks of its workers beside their runs, carried in the environment.

A run's own config.yaml is that of the first launch; how often a run is tried is the business of each command.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass

OPTIONS_VARIABLE = "AB_HARNESS_TERMS"
MAX_BACKOFF_SECONDS = 60.0
INCOMPLETE = 3
"""Exit status of a worker that leaves a run which the same command would train further."""


@dataclass(frozen=True)
class WorkerOptions:
    """As `engine.<field>` says. A worker that was told nothing tries each run once."""

    attempts: int = 1
    """Failures in a row that a run may have without getting further, before it is given up."""
    backoff_seconds: float = 1.0
    stall_seconds: float = 300.0
    on_failure: str = "continue"
    devices: int = 0
    """That the worker may use at a time; 0: all that it has."""

    def backoff(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row: doubled by each, and never so long that waiting
        looks like a stall."""
        return min(self.backoff_seconds * 2 ** (failures - 1), MAX_BACKOFF_SECONDS, self.stall_seconds / 2)


def to_env(options: WorkerOptions) -> dict[str, str]:
    return {OPTIONS_VARIABLE: json.dumps(dataclasses.asdict(options))}


def from_env(env: Mapping[str, str]) -> WorkerOptions:
    return WorkerOptions(**json.loads(env.get(OPTIONS_VARIABLE, "{}")))
