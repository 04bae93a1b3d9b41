"""Group of processes that train one run together, passed in the environment.

An engine starts `python -m harness.worker RUN_DIR` once per process, with the same `AB_HARNESS_PROCESSES` and
with `AB_HARNESS_PROCESS` = 0, 1, ... JAX's guess from a scheduler's variables is never used, because it would
give two runs in one allocation the same port.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass

from harness.core.errors import UserError

GROUP_VARIABLE = "AB_HARNESS_PROCESSES"
INDEX_VARIABLE = "AB_HARNESS_PROCESS"
LOOPBACK = "127.0.0.1"
"""Host of process 0 where all processes are on one machine: no other machine reaches them."""


@dataclass(frozen=True)
class ProcessGroup:
    """Size, rendezvous and timeouts of the group. Only process 0, the primary, writes into the run."""

    count: int
    launch_id: str
    """Unique name of this launch of the run."""
    host: str = ""
    """Host name of process 0 for the others; empty: the host name that process 0 sees."""
    join_timeout_seconds: float = 300.0
    """Seconds until every process must have joined."""
    heartbeat_seconds: int = 100
    """Seconds without a heartbeat after which a process counts as dead."""
    shutdown_seconds: int = 60
    """Seconds that a process waits for the others at the end."""
    index: int = 0


def to_env(group: ProcessGroup) -> dict[str, str]:
    """Return the environment of process `group.index`; a launcher of identical tasks sets INDEX_VARIABLE."""
    content = dataclasses.asdict(group)
    return {INDEX_VARIABLE: str(content.pop("index")), GROUP_VARIABLE: json.dumps(content)}


def from_env(env: Mapping[str, str]) -> ProcessGroup | None:
    """Read the group; None if the process trains alone. Raises UserError for values no engine writes."""
    if GROUP_VARIABLE not in env:
        return None
    try:
        group = ProcessGroup(**json.loads(env[GROUP_VARIABLE]), index=int(env.get(INDEX_VARIABLE, "")))
    except (ValueError, TypeError) as error:
        values = f"{GROUP_VARIABLE}={env[GROUP_VARIABLE]} and {INDEX_VARIABLE}={env.get(INDEX_VARIABLE, '')}"
        way_out = "An engine must set both, the second to 0 or more."
        raise UserError(f"{values} cannot be read ({error}). {way_out}") from error
    if not 0 <= group.index < group.count:
        raise UserError(
            f"{INDEX_VARIABLE}={group.index} is out of range. {GROUP_VARIABLE} has {group.count} processes: "
            f"give 0 to {group.count - 1}."
        )
    return group
