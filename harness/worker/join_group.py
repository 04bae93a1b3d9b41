"""The processes that train one run, from the moment they come until they part."""

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
    MissingProcesses,
    Rendezvous,
    connect_processes,
)
from harness.records.paths import RunDir
from harness.records.run.status import ProcessInfo, State, read_status, write_status
from harness.training.run import PreparedRun

JOINT_END_STATES = (State.finished, State.diverged, State.preempted, State.waiting)
"""Ends to which all processes come after the same step."""


def start_group(processes: ProcessGroup, task: PreparedRun) -> Rendezvous:
    """Returns when all are here; from then on the end of one ends all. Raises UserError where the run's
    devices cannot be shared out; where not all come, leaves as `leave_lost` does."""
    devices = task.config.mesh.devices
    if devices % processes.count:
        raise UserError(
            f"engine.processes={processes.count} does not divide the {devices} devices of mesh: give a "
            "number that does, or another mesh"
        )
    file, leads = task.run.meeting, processes.index == 0
    set_process_index(processes.index)
    try:
        meeting = connect_processes(
            processes,
            lambda address: write_checksummed_json(file, {"address": address}),
            lambda: _read_address(task.run),
        )
    except MissingProcesses as error:
        abort_lost(task.run, processes, str(error))
    if leads:
        file.unlink(missing_ok=True)
    meeting.watch_peers(lambda why: abort_lost(task.run, processes, why))
    return meeting


def abort_lost(run: RunDir, processes: ProcessGroup, message: str) -> NoReturn:
    """Ends this process, which may stand in a collective that nobody will answer any more: nothing else
    would bring it back."""
    if processes.index == 0:
        write_final_status(run, State.lost, message)
    print(f"{run.path}: {message}; the same command continues", file=sys.stderr, flush=True)
    _flush_and_exit(INCOMPLETE)


def write_final_status(run: RunDir, state: State, message: str) -> None:
    """When no journal has the status, or none that will write again."""
    status = dataclasses.replace(read_status(run), state=state, phase="end", message=message)
    write_status(run, dataclasses.replace(status, writer=ProcessInfo.here()))


def leave_group(meeting: Rendezvous, run: RunDir, state: State) -> None:
    """Part from the others. After an end that is this process's own it ends here: to part takes all."""
    from harness.parallel.processes.jax_distributed import shutdown

    if state in JOINT_END_STATES:
        broadcast_from_primary(lambda: state.value)  # the others wait for what process 0 has left to write
        shutdown(meeting)
        return
    meeting.announce_failure(f"{state.value}, as its log says")
    time.sleep(GRACE_SECONDS)  # was it because another one is gone? Then that is what is said of the run
    _flush_and_exit(0 if state.is_final else INCOMPLETE)


def _read_address(run: RunDir) -> str | None:
    content = read_checksummed_json(run.meeting)
    return content["address"] if content else None


def _flush_and_exit(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
