"""Trains the runs it is given, side by side: `python -m harness.worker RUN_DIR...`.

The one entry point of every engine, whoever shares a worker. Each run gets a lane, a sub-mesh of this
process's devices, and a thread; lanes never wait for each other. Where the devices do not hold all runs,
blocks wait for their turn. The directories hold everything (config.yaml,
run.json), so nothing is pickled and any machine that sees them can do the work.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.config.process_group import INDEX, NAME, Processes
from harness.config.process_group import from_env as processes_from_env
from harness.config.schema.run import Config
from harness.config.worker_options import INCOMPLETE, Terms, from_env
from harness.core.cpu_flags import cpu_profile, keep_memory
from harness.core.errors import UserError
from harness.models.user_modules import import_modules
from harness.records.paths import RunDir
from harness.records.run.config_file import read_config
from harness.records.run.integrity import tidy
from harness.records.run.provenance import read_provenance
from harness.records.run.run_lock import HELD, claim
from harness.records.run.status import State, Status, Writer, read_status, write_status

if TYPE_CHECKING:
    from harness.data.shared_reader import Library
    from harness.parallel.processes.rendezvous import Meeting
    from harness.training.programs.compile_cache import Device
    from harness.training.programs.memory_check import Room
    from harness.training.run import Assignment
    from harness.worker.scheduler import Lease, Turn


def command(argv: list[str]) -> int:
    """As a process of its own: it holds its runs until it ends, as a fork server's child does. Of several
    processes that train one run, the first holds it for all. A scheduler may have started it again without
    the driver, so it tidies up first."""
    runs = [RunDir(Path(path).resolve()) for path in argv]
    if os.environ.get(INDEX, "0") == "0":
        if not all(claim(run.claim) for run in runs):
            return HELD
        for run in runs:
            tidy(run)
    return main(argv)


def main(argv: list[str], env: Mapping[str, str] | None = None) -> int:
    """Train the runs in `argv`; 0 if each reached an end that stands, 3 if not, 2 for a user's mistake.

    `env` is set before any backend exists: in a fork server's child jax is imported already, but
    has no devices yet. Where it speaks of several processes, this is one of those that train a run together.
    """
    env = env or {}
    tasks: list[Assignment] = []
    processes, meeting = None, None
    try:
        processes = processes_from_env({**os.environ, **env})
        tasks = [_assignment(RunDir(Path(path).resolve())) for path in argv]
        meeting = _met(processes, tasks) if processes else None
        _prepare_process(tasks, env, meeting)
    except UserError as error:
        for task in tasks if _leads(processes) else ():
            write_status(task.run, Status(State.refused, message=str(error), writer=Writer.here()))
        print(error, file=sys.stderr)
        return 2
    leave = threading.Event()
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, lambda *_: leave.set())
    states = _train(tasks, from_env(os.environ), leave, meeting)
    if meeting is not None:
        from harness.worker.join_group import take_leave

        take_leave(meeting, tasks[0].run, states[0])
    return 0 if all(state.settled for state in states) else INCOMPLETE


def _leads(processes: Processes | None) -> bool:
    return processes is None or processes.index == 0


def _met(processes: Processes, tasks: Sequence[Assignment]) -> Meeting:
    """The processes that train the one run with this one."""
    from harness.worker.join_group import assemble

    if len(tasks) != 1:
        raise UserError(
            f"{NAME}: {processes.count} processes train one run at a time, these are {len(tasks)}"
        )
    return assemble(processes, tasks[0])


def _assignment(run: RunDir) -> Assignment:
    from harness.training.run import Assignment

    provenance = read_provenance(run)
    if provenance is None or not run.config.exists():
        raise UserError(f"{run.path}: no run.json and config.yaml that fit: `harness sweep` prepares them")
    return Assignment(run, read_config(run.config), provenance)


def _prepare_process(tasks: list[Assignment], env: Mapping[str, str], meeting: Meeting | None) -> None:
    """Device count and flags, fixed for the life of this process. Without orders, all runs at once."""
    count = meeting.processes.count if meeting else 1
    total = sum(task.config.mesh.devices for task in tasks) // count
    if tasks[0].config.cluster.platform == "cpu":
        env = cpu_profile(total) | dict(env)
        keep_memory()
    os.environ.update(env)
    import jax

    from harness.parallel.processes.jax_distributed import join

    # Programs are kept in a cache of our own; what JAX's gives back cannot be serialised again.
    jax.config.update("jax_enable_compilation_cache", False)
    if "JAX_NUM_CPU_DEVICES" in env:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", int(env["JAX_NUM_CPU_DEVICES"]))
    if meeting is not None:
        join(meeting, total)
    import_modules(tasks[0].config)


def _train(
    tasks: list[Assignment], terms: Terms, leave: threading.Event, meeting: Meeting | None = None
) -> list[State]:
    """Each run in its turn, on its part of the devices. What ends in one of several processes is not tried
    again here, since it has ended in the others too."""
    import jax

    from harness.data.shared_reader import Library
    from harness.training.programs.memory_check import Room
    from harness.worker.scheduler import Turn, Turns, write_turn

    leads = _leads(meeting.processes if meeting else None)
    terms = replace(terms, attempts=1) if meeting else terms
    devices = jax.devices()[: terms.devices or None]
    turns = [Turn(task.run, _block(task.config), task.config.mesh.devices) for task in tasks]
    attempts = _Attempts(dict(zip(turns, tasks, strict=True)), devices, Library(), Room())
    write = write_turn if leads else lambda *_: None
    return Turns(turns, len(devices), attempts.train, terms, leave, write).take(tasks[0].begun)


def _block(config: Config) -> str:
    """Runs with this in common, where they stand together, start together."""
    return f"{config.scale.name}/seed{config.seed}"


@dataclass(frozen=True)
class _Attempts:
    """What an attempt leans on; nothing of a lane outlives it."""

    tasks: Mapping[Turn, Assignment]
    devices: Sequence[Device]
    library: Library
    room: Room

    def train(self, turn: Turn, lease: Lease) -> State:
        from harness.parallel.processes.agreement import leads
        from harness.training.parent_checkpoint import rebuilt
        from harness.training.programs.run_programs import open_lane, rows_of
        from harness.training.run import train_run

        task = replace(self.tasks[turn], begun=lease.begun)
        mine = self.devices[lease.first : lease.first + turn.width]
        try:
            with self.library.open(task.config, rows_of(task.config, mine)) as reading:
                model = rebuilt(task.config, task.provenance.facts)
                get, heldout = reading.reader.get, reading.heldout
                lane = open_lane(task.config, model, mine, get, heldout, reading.gallery)
                return train_run(task, lane, lease.leave, self.room)
        except UserError as error:
            if leads():
                status = replace(read_status(task.run), state=State.refused, message=str(error))
                write_status(task.run, status)
            return State.refused
