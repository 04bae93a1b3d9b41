"""Options of a command for its workers, passed in the environment.

A run's config.yaml comes from the first launch, but every command sets the retries anew.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass

from harness.core.progress.report import OPAQUE_SECONDS

OPTIONS_VARIABLE = "AB_HARNESS_TERMS"
MAX_BACKOFF_SECONDS = 60.0
INCOMPLETE = 3
"""Exit status of a worker that stops before a run is done; the same command would continue it."""


@dataclass(frozen=True)
class WorkerOptions:
    """Values of `engine.<field>`. Without them a worker tries each run once."""

    attempts: int = 1
    """Number of consecutive failures without progress after which a run is given up."""
    backoff_seconds: float = 1.0
    stall_seconds: float = 300.0
    opaque_seconds: float = OPAQUE_SECONDS
    on_failure: str = "continue"
    devices: int = 0
    """Number of devices that the worker may use at a time; 0: all."""
    side_by_side: bool = True
    """True if the runs of a block start together; False if each starts as soon as it has devices."""

    def backoff(self, failures: int) -> float:
        """Return the seconds to wait: doubled per failure, up to the maximum and half of `stall_seconds`."""
        return min(self.backoff_seconds * 2 ** (failures - 1), MAX_BACKOFF_SECONDS, self.stall_seconds / 2)


def to_env(options: WorkerOptions) -> dict[str, str]:
    """Return the environment variable that holds the options as JSON."""
    return {OPTIONS_VARIABLE: json.dumps(dataclasses.asdict(options))}


def from_env(env: Mapping[str, str]) -> WorkerOptions:
    """Read the options; the defaults if the variable is not set."""
    return WorkerOptions(**json.loads(env.get(OPTIONS_VARIABLE, "{}")))
