"""The processes that train one run, from the moment they come until they part."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from typing import NoReturn

from harness.config.process_group import Processes
from harness.config.worker_options import INCOMPLETE
from harness.core.atomic_files import read_sealed, write_sealed
from harness.core.errors import UserError
from harness.parallel.processes.agreement import agreed, number
from harness.parallel.processes.rendezvous import GRACE, Absent, Meeting, meet
from harness.records.paths import RunDir
from harness.records.run.status import State, Writer, read_status, write_status
from harness.training.run import Assignment

TOGETHER = (State.finished, State.diverged, State.preempted, State.waiting)
"""Ends to which all processes come after the same step."""


def assemble(processes: Processes, task: Assignment) -> Meeting:
    """Returns when all are here; from then on the end of one ends all. Raises UserError where the run's
    devices cannot be shared out; where not all come, leaves as `leave_lost` does."""
    devices = task.config.mesh.devices
    if devices % processes.count:
        raise UserError(
            f"engine.processes={processes.count} does not divide the {devices} devices of mesh: give a "
            "number that does, or another mesh"
        )
    place, leads = task.run.meeting, processes.index == 0
    number(processes.index)
    try:
        meeting = meet(
            processes, lambda address: write_sealed(place, {"address": address}), lambda: _address(task.run)
        )
    except Absent as error:
        leave_lost(task.run, processes, str(error))
    if leads:
        place.unlink(missing_ok=True)
    meeting.watch(lambda why: leave_lost(task.run, processes, why))
    return meeting


def leave_lost(run: RunDir, processes: Processes, why: str) -> NoReturn:
    """Ends this process, which may stand in a collective that nobody will answer any more: nothing else
    would bring it back."""
    if processes.index == 0:
        end_as(run, State.lost, why)
    print(f"{run.path}: {why}; the same command continues", file=sys.stderr, flush=True)
    _exit(INCOMPLETE)


def end_as(run: RunDir, state: State, words: str) -> None:
    """When no journal has the status, or none that will write again."""
    status = dataclasses.replace(read_status(run), state=state, phase="end", message=words)
    write_status(run, dataclasses.replace(status, writer=Writer.here()))


def take_leave(meeting: Meeting, run: RunDir, state: State) -> None:
    """Part from the others. After an end that is this process's own it ends here: to part takes all."""
    from harness.parallel.processes.jax_distributed import part

    if state in TOGETHER:
        agreed(lambda: state.value)  # the others wait for what process 0 has left to write
        part(meeting)
        return
    meeting.fail(f"{state.value}, as its log says")
    time.sleep(GRACE)  # was it because another one is gone? Then that is what is said of the run
    _exit(0 if state.settled else INCOMPLETE)


def _address(run: RunDir) -> str | None:
    found = read_sealed(run.meeting)
    return found["address"] if found else None


def _exit(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
