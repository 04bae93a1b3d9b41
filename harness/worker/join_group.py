"""Process group of one multi-process run: joining it, leaving it, and losing a member."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from typing import NoReturn

from harness.config.process_group import ProcessGroup
from harness.config.worker_options import INCOMPLETE
from harness.core.atomic_files import read_checksummed_json, write_checksummed_json
from harness.core.errors import UserError
from harness.parallel.processes.agreement import broadcast_from_primary, set_process_index
from harness.parallel.processes.rendezvous import (
    GRACE_SECONDS,
    MeetingPoint,
    MissingProcesses,
    Rendezvous,
    connect_processes,
)
from harness.records.paths import RunDir
from harness.records.run.status import ProcessInfo, State, read_status, write_status
from harness.training.prepared_run import PreparedRun

JOINT_END_STATES = (State.finished, State.diverged, State.preempted, State.waiting)
"""End states that all processes of a run reach after the same step."""


def start_group(processes: ProcessGroup, task: PreparedRun) -> Rendezvous:
    """Block until every process has joined. From then on, if one process exits, all exit. Raises UserError if
    the devices do not divide over the processes. If a process is missing, `abort_lost`."""
    devices = task.config.mesh.devices
    if devices % processes.count:
        raise UserError(
            f"engine.processes={processes.count} does not divide the {devices} devices of the mesh. "
            "Change engine.processes or the mesh."
        )
    file = task.run.rendezvous
    set_process_index(processes.index)

    def publish(point: MeetingPoint) -> None:
        write_checksummed_json(file, dataclasses.asdict(point), private=True)

    def read_point() -> MeetingPoint | None:
        content = read_checksummed_json(file)
        return MeetingPoint(str(content.get("address")), str(content.get("secret"))) if content else None

    try:
        rendezvous = connect_processes(processes, publish, read_point)
    except MissingProcesses as error:
        abort_lost(task.run, processes, str(error))
    if processes.index == 0:
        file.unlink(missing_ok=True)
    rendezvous.watch_peers(lambda reason: abort_lost(task.run, processes, reason))
    return rendezvous


def abort_lost(run: RunDir, processes: ProcessGroup, message: str) -> NoReturn:
    """Exit this process hard: it may be blocked in a collective that can no longer complete."""
    if processes.index == 0:  # no RunWriter is active
        status = dataclasses.replace(read_status(run), state=State.lost, phase="end", message=message)
        write_status(run, dataclasses.replace(status, writer=ProcessInfo.current()))
    print(f"{run.path}: {message}; the same command continues", file=sys.stderr, flush=True)
    _flush_and_exit(INCOMPLETE)


def leave_group(rendezvous: Rendezvous, run: RunDir, state: State) -> None:
    """Leave the group after a run ended with `state`. If this process failed on its own, exit without the
    shutdown barrier, which needs every process."""
    from harness.parallel.processes.jax_distributed import shutdown

    if state in JOINT_END_STATES:
        broadcast_from_primary(lambda: state.value)  # wait until process 0 has written all files
        shutdown(rendezvous)
        return
    rendezvous.announce_failure(f"{state.value}, as its log says")
    time.sleep(GRACE_SECONDS)  # if a peer was lost, let its watcher write the status
    _flush_and_exit(0 if state.is_final else INCOMPLETE)


def _flush_and_exit(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
