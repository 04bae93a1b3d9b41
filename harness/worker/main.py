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

from harness.config.process_group import INDEX, NAME, ProcessGroup
from harness.config.process_group import from_env as processes_from_env
from harness.config.schema.run import Config
from harness.config.worker_options import INCOMPLETE, WorkerOptions, from_env
from harness.core.cpu_flags import cpu_env, disable_malloc_trim
from harness.core.errors import UserError
from harness.models.registry import import_modules
from harness.records.paths import RunDir
from harness.records.run.config_file import read_config
from harness.records.run.integrity import remove_partial_files
from harness.records.run.provenance import read_provenance
from harness.records.run.run_lock import HELD, acquire
from harness.records.run.status import ProcessInfo, State, Status, read_status, write_status

if TYPE_CHECKING:
    from harness.data.shared_reader import SharedReaders
    from harness.parallel.processes.rendezvous import Rendezvous
    from harness.training.programs.compile_cache import Device
    from harness.training.programs.memory_check import MemoryBudget
    from harness.training.run import PreparedRun
    from harness.worker.scheduler import DeviceAllocation, ScheduledRun


def command(argv: list[str]) -> int:
    """As a process of its own: it holds its runs until it ends, as a fork server's child does. Of several
    processes that train one run, the first holds it for all. A scheduler may have started it again without
    the driver, so it tidies up first."""
    runs = [RunDir(Path(path).resolve()) for path in argv]
    if os.environ.get(INDEX, "0") == "0":
        if not all(acquire(run.claim) for run in runs):
            return HELD
        for run in runs:
            remove_partial_files(run)
    return main(argv)


def main(argv: list[str], env: Mapping[str, str] | None = None) -> int:
    """Train the runs in `argv`; 0 if each reached an end that stands, 3 if not, 2 for a user's mistake.

    `env` is set before any backend exists: in a fork server's child jax is imported already, but
    has no devices yet. Where it speaks of several processes, this is one of those that train a run together.
    """
    env = env or {}
    tasks: list[PreparedRun] = []
    processes, meeting = None, None
    try:
        processes = processes_from_env({**os.environ, **env})
        tasks = [_read_prepared_run(RunDir(Path(path).resolve())) for path in argv]
        meeting = _join_group(processes, tasks) if processes else None
        _prepare_process(tasks, env, meeting)
    except UserError as error:
        for task in tasks if _is_primary(processes) else ():
            write_status(task.run, Status(State.refused, message=str(error), writer=ProcessInfo.here()))
        print(error, file=sys.stderr)
        return 2
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, lambda *_: stop.set())
    states = _train_runs(tasks, from_env(os.environ), stop, meeting)
    if meeting is not None:
        from harness.worker.join_group import leave_group

        leave_group(meeting, tasks[0].run, states[0])
    return 0 if all(state.is_final for state in states) else INCOMPLETE


def _is_primary(processes: ProcessGroup | None) -> bool:
    return processes is None or processes.index == 0


def _join_group(processes: ProcessGroup, tasks: Sequence[PreparedRun]) -> Rendezvous:
    """The processes that train the one run with this one."""
    from harness.worker.join_group import start_group

    if len(tasks) != 1:
        raise UserError(
            f"{NAME}: {processes.count} processes train one run at a time, these are {len(tasks)}"
        )
    return start_group(processes, tasks[0])


def _read_prepared_run(run: RunDir) -> PreparedRun:
    from harness.training.run import PreparedRun

    provenance = read_provenance(run)
    if provenance is None or not run.config.exists():
        raise UserError(f"{run.path}: no run.json and config.yaml that fit: `harness sweep` prepares them")
    return PreparedRun(run, read_config(run.config), provenance)


def _prepare_process(tasks: list[PreparedRun], env: Mapping[str, str], meeting: Rendezvous | None) -> None:
    """Device count and flags, fixed for the life of this process. Without orders, all runs at once."""
    count = meeting.processes.count if meeting else 1
    total = sum(task.config.mesh.devices for task in tasks) // count
    if tasks[0].config.cluster.platform == "cpu":
        env = cpu_env(total) | dict(env)
        disable_malloc_trim()
    os.environ.update(env)
    import jax

    from harness.parallel.processes.jax_distributed import initialize

    # Programs are kept in a cache of our own; what JAX's gives back cannot be serialised again.
    jax.config.update("jax_enable_compilation_cache", False)
    if "JAX_NUM_CPU_DEVICES" in env:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", int(env["JAX_NUM_CPU_DEVICES"]))
    if meeting is not None:
        initialize(meeting, total)
    import_modules(tasks[0].config)


def _train_runs(
    tasks: list[PreparedRun],
    terms: WorkerOptions,
    stop: threading.Event,
    meeting: Rendezvous | None = None,
) -> list[State]:
    """Each run in its turn, on its part of the devices. What ends in one of several processes is not tried
    again here, since it has ended in the others too."""
    import jax

    from harness.data.shared_reader import SharedReaders
    from harness.training.programs.memory_check import MemoryBudget
    from harness.worker.scheduler import RunScheduler, ScheduledRun, write_idle_status

    leads = _is_primary(meeting.processes if meeting else None)
    terms = replace(terms, attempts=1) if meeting else terms
    devices = jax.devices()[: terms.devices or None]
    runs = [ScheduledRun(task.run, _block_key(task.config), task.config.mesh.devices) for task in tasks]
    trainer = _RunTrainer(dict(zip(runs, tasks, strict=True)), devices, SharedReaders(), MemoryBudget())
    write = write_idle_status if leads else lambda *_: None
    return RunScheduler(runs, len(devices), trainer.train, terms, stop, write).run_all(tasks[0].started_at)


def _block_key(config: Config) -> str:
    """Runs with this in common, where they stand together, start together."""
    return f"{config.scale.name}/seed{config.seed}"


@dataclass(frozen=True)
class _RunTrainer:
    """What an attempt leans on; nothing of a lane outlives it."""

    tasks: Mapping[ScheduledRun, PreparedRun]
    devices: Sequence[Device]
    readers: SharedReaders
    memory_budget: MemoryBudget

    def train(self, run: ScheduledRun, allocation: DeviceAllocation) -> State:
        from harness.parallel.processes.agreement import is_primary
        from harness.training.parent_checkpoint import rebuild_model
        from harness.training.programs.run_programs import local_rows, make_run_programs
        from harness.training.run import train_run

        task = replace(self.tasks[run], started_at=allocation.started_at)
        devices = self.devices[allocation.first_device : allocation.first_device + run.num_devices]
        try:
            with self.readers.open(task.config, local_rows(task.config, devices)) as data:
                model = rebuild_model(task.config, task.provenance.facts)
                get, heldout = data.reader.get, data.heldout
                programs = make_run_programs(task.config, model, devices, get, heldout, data.features)
                return train_run(task, programs, allocation.stop, self.memory_budget)
        except UserError as error:
            if is_primary():
                status = replace(read_status(task.run), state=State.refused, message=str(error))
                write_status(task.run, status)
            return State.refused
