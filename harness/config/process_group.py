"""The processes that train one run together, carried in the environment.

An engine starts `python -m harness.worker RUN_DIR` once a process with the same `AB_HARNESS_PROCESSES`, and
with `AB_HARNESS_PROCESS` from 0 up. What JAX could guess from a scheduler's own variables is never used: two
runs inside one allocation would get one port.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass

from harness.core.errors import UserError

GROUP_VARIABLE = "AB_HARNESS_PROCESSES"
INDEX_VARIABLE = "AB_HARNESS_PROCESS"


@dataclass(frozen=True)
class ProcessGroup:
    """How many, and how they find and mind each other. Process 0 leads: it alone writes into the run."""

    count: int
    launch_id: str
    """Names this start among all starts of the run."""
    host: str = ""
    """By which the others reach process 0; empty: as process 0 calls its machine."""
    join_timeout_seconds: float = 300.0
    """Until all have come."""
    heartbeat_seconds: int = 100
    """A process that has said nothing for so long, and did not end either, is taken for dead."""
    shutdown_seconds: int = 60
    """That a process waits for the others at the end."""
    index: int = 0


def to_env(group: ProcessGroup) -> dict[str, str]:
    """Of the process `processes.index`; an engine that starts all alike overrides `INDEX` in each."""
    content = dataclasses.asdict(group)
    return {INDEX_VARIABLE: str(content.pop("index")), GROUP_VARIABLE: json.dumps(content)}


def from_env(env: Mapping[str, str]) -> ProcessGroup | None:
    """None for a process that trains alone. Raises UserError for what no engine wrote."""
    if GROUP_VARIABLE not in env:
        return None
    try:
        group = ProcessGroup(**json.loads(env[GROUP_VARIABLE]), index=int(env.get(INDEX_VARIABLE, "")))
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{GROUP_VARIABLE}={env[GROUP_VARIABLE]}, {INDEX_VARIABLE}={env.get(INDEX_VARIABLE, '')}: an engine sets both, the second one from 0 up"
            f" ({error})"
        ) from error
    if not 0 <= group.index < group.count:
        raise UserError(
            f"{INDEX_VARIABLE}={group.index}: {GROUP_VARIABLE} speaks of {group.count}, so give 0 to {group.count - 1}"
        )
    return group
