"""Worker process: trains the runs it is given (`python -m harness.worker RUN_DIR...`).

It is the entry point of every engine. Each run gets a lane (a sub-mesh of this process's devices) and a
thread, and lanes never wait for each other. If the devices cannot hold all runs, the rest is queued.
The run directories hold everything (config.yaml, run.json), so nothing is pickled, and any machine that
sees them can do the work.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from itertools import dropwhile
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, NoReturn

from harness.config.process_group import GROUP_VARIABLE, INDEX_VARIABLE, ProcessGroup
from harness.config.process_group import from_env as processes_from_env
from harness.config.worker_options import INCOMPLETE, WorkerOptions, from_env
from harness.core.atomic_files import keep_own_access
from harness.core.errors import UserError
from harness.core.jax_setup.cpu_flags import cpu_env
from harness.core.jax_setup.hide_ipython import hide_ipython
from harness.core.jax_setup.jax_range import check_jax_version
from harness.core.jax_setup.jax_variables import drop_jax_options
from harness.core.jax_setup.malloc_options import keep_freed_memory
from harness.records.paths import RunDir
from harness.records.run.config_file import read_config
from harness.records.run.integrity import remove_partial_files
from harness.records.run.provenance import read_provenance
from harness.records.run.run_lock import ALREADY_RUNNING, acquire
from harness.records.run.status import ProcessInfo, State, Status, read_status, write_status
from harness.training.prepared_run import PreparedRun

if TYPE_CHECKING:
    from harness.data.readers import SharedReaders
    from harness.parallel.processes.rendezvous import Rendezvous
    from harness.training.programs.compile_cache import Device
    from harness.training.programs.memory_check import MemoryBudget
    from harness.worker.scheduler import DeviceAllocation, ScheduledRun


def command(argv: list[str]) -> int:
    """Lock the runs, remove partial files, then train: the command of a separate process. Process 0 of a
    multi-process run locks it for all. Locks last until the process ends. A scheduler may have restarted this
    process without the driver, hence the cleanup."""
    keep_own_access()
    runs = [RunDir(Path(path).resolve()) for path in argv]
    if os.environ.get(INDEX_VARIABLE, "0") == "0":
        if not all(acquire(run.worker_lock) for run in runs):
            return ALREADY_RUNNING
        for run in runs:
            remove_partial_files(run)
    return main(argv)


def main(argv: list[str], env: Mapping[str, str] | None = None, stop: Event | None = None) -> int:
    """Train the runs in `argv`. Return 0 if all reached a final state, 3 if not, 2 for a user's mistake.
    `env` is set before any JAX backend exists: a fork server's child has imported jax, but has no devices. If
    `env` describes a process group, this process is one of those that train one run together. Once `stop` is
    set, which signals do from the first run on, every run saves and ends."""
    env, stop = env or {}, stop or Event()
    tasks: list[PreparedRun] = []
    processes, rendezvous = None, None
    try:
        processes = processes_from_env({**os.environ, **env})
        tasks = [_read_prepared_run(RunDir(Path(path).resolve())) for path in argv]
        rendezvous = _join_group(processes, tasks) if processes else None
        _prepare_process(tasks, env, rendezvous)
    except UserError as error:
        for task in tasks if _is_primary(processes) else ():
            write_status(task.run, Status(State.refused, message=str(error), writer=ProcessInfo.current()))
        print(error, file=sys.stderr)
        return 2
    _stop_on_signals(stop)
    states = _train_runs(tasks, from_env(os.environ), stop, rendezvous)
    if rendezvous is not None:
        from harness.worker.join_group import leave_group

        leave_group(rendezvous, tasks[0].run, states[0])
    return 0 if all(state.is_final for state in states) else INCOMPLETE


def _stop_on_signals(stop: Event) -> None:
    """Set `stop` on a signal to leave, and on Ctrl-C. A second Ctrl-C ends the process without waiting."""

    def leave(number: int, _: object) -> None:
        stop.set()
        if number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
        signal.signal(number, leave)


def _is_primary(processes: ProcessGroup | None) -> bool:
    return processes is None or processes.index == 0


def _join_group(processes: ProcessGroup, tasks: Sequence[PreparedRun]) -> Rendezvous:
    """Join the processes that train the same run. Raises UserError unless there is exactly one run."""
    from harness.worker.join_group import start_group

    if len(tasks) != 1:
        problem = f"{processes.count} processes share one run, but {len(tasks)} were given"
        raise UserError(f"{GROUP_VARIABLE}: {problem}.")
    return start_group(processes, tasks[0])


def _read_prepared_run(run: RunDir) -> PreparedRun:
    provenance = read_provenance(run)
    if provenance is None or not run.config.exists():
        missing = "run.json or config.yaml is missing"
        raise UserError(f"{run.path}: {missing}. Prepare the run with `harness sweep`.")
    return PreparedRun(run, read_config(run.config), provenance)


def _prepare_process(tasks: list[PreparedRun], env: Mapping[str, str], rendezvous: Rendezvous | None) -> None:
    """Set the number of devices, enough for all runs at once, and the flags of this process. Raises UserError
    for a JAX that is too old, which another host of a cluster may have."""
    check_jax_version()
    count = rendezvous.processes.count if rendezvous else 1
    total = sum(task.config.mesh.devices for task in tasks) // count
    if tasks[0].config.cluster.platform == "cpu":
        env = cpu_env(total) | dict(env)
        keep_freed_memory(max(task.provenance.parameters for task in tasks))
    drop_jax_options()  # JAX reads them when it is imported; a node may set others than the driver's shell
    os.environ.update(env)
    _import_training()
    import jax

    from harness.models.registry import import_modules
    from harness.parallel.processes.jax_distributed import initialize

    # We have a cache of our own: programs loaded from JAX's cannot be serialised again.
    jax.config.update("jax_enable_compilation_cache", False)
    if "JAX_NUM_CPU_DEVICES" in env:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", int(env["JAX_NUM_CPU_DEVICES"]))
    if rendezvous is not None:
        initialize(rendezvous, total)
    import_modules(tasks[0].config)


def _import_training() -> None:
    """Import what trains runs; a child of a fork server has it already."""
    gc.disable()  # imports make little garbage, and a tenth of their time would search for it
    try:
        with hide_ipython():
            import harness.training.run
            import harness.worker.scheduler  # noqa: F401
    finally:
        gc.enable()


def _train_runs(
    tasks: list[PreparedRun], options: WorkerOptions, stop: Event, rendezvous: Rendezvous | None = None
) -> list[State]:
    """Train each run on its part of the devices. A process of a group never retries: the run has ended in
    the other processes too."""
    import jax

    from harness.data.readers import SharedReaders
    from harness.training.programs.memory_check import MemoryBudget
    from harness.worker.scheduler import RunScheduler, ScheduledRun, write_idle_status

    is_primary = _is_primary(rendezvous.processes if rendezvous else None)
    options = replace(options, attempts=1) if rendezvous else options
    devices = jax.devices()[: options.devices or None]
    runs = []
    for task in tasks:
        block = f"{task.config.scale.name}/seed{task.config.seed}"  # adjacent runs of a block start together
        runs.append(ScheduledRun(task.run, block, task.config.mesh.devices))
    trainer = _RunTrainer(
        dict(zip(runs, tasks, strict=True)), devices, SharedReaders(), MemoryBudget(), options.opaque_seconds
    )
    write = write_idle_status if is_primary else lambda *_: None
    return RunScheduler(runs, len(devices), trainer.train, options, stop, write).run_all(tasks[0].started_at)


def _no_batch(step: int) -> NoReturn:
    raise RuntimeError(f"the batch of step {step} is asked for before the data are open")


@dataclass(frozen=True)
class _RunTrainer:
    """Resources shared by all attempts of this worker; nothing here is specific to one run."""

    tasks: Mapping[ScheduledRun, PreparedRun]
    devices: Sequence[Device]
    readers: SharedReaders
    memory_budget: MemoryBudget
    opaque_seconds: float

    def train(self, run: ScheduledRun, allocation: DeviceAllocation) -> State:
        """Make one attempt at a run on its devices. Return the end state, as written to disk."""
        from harness.core.progress.report import reports_to
        from harness.parallel.processes.agreement import is_primary
        from harness.worker.scheduler import IdleHeartbeat

        beat = IdleHeartbeat(run.run).beat if is_primary() else lambda _: None
        with reports_to(beat, self.opaque_seconds):
            return self._train(run, allocation)

    def _train(self, run: ScheduledRun, allocation: DeviceAllocation) -> State:
        from harness.core.progress.waiting import spare_work
        from harness.data.open_data import check_same_content
        from harness.parallel.processes.agreement import is_primary
        from harness.training.parent_checkpoint import rebuild_model
        from harness.training.programs.run_programs import local_rows, make_run_programs
        from harness.training.run import train_run

        task = replace(self.tasks[run], started_at=allocation.started_at)
        facts = task.provenance.facts
        devices = self.devices[allocation.first_device : allocation.first_device + run.num_devices]
        try:
            check_same_content(task.config, facts.data_fingerprint, facts.eval_fingerprint)
            with ExitStack() as stack:
                with spare_work(self._compile_ahead(run)):  # while another process tokenises
                    rows = local_rows(task.config, devices)
                    data = stack.enter_context(self.readers.open(task.config, rows))
                model = rebuild_model(task.config, facts)
                get_batch, heldout = data.reader.get, data.heldout
                programs = make_run_programs(task.config, model, devices, get_batch, heldout, data.features)
                return train_run(task, programs, allocation.stop, self.memory_budget)
        except UserError as error:
            if is_primary():
                status = replace(read_status(task.run), state=State.refused, message=str(error))
                write_status(task.run, status)
            return State.refused

    def _compile_ahead(self, run: ScheduledRun) -> Iterator[None]:
        """Compile the programs of a run, then those of each run behind it, into the cache. An error is
        raised again, and reported, when its run starts."""
        from harness.training.parent_checkpoint import rebuild_model
        from harness.training.programs.run_programs import make_run_programs

        for later in dropwhile(lambda other: other is not run, self.tasks):
            task, devices = self.tasks[later], self.devices[: later.num_devices]
            with suppress(Exception):
                model = rebuild_model(task.config, task.provenance.facts)
                make_run_programs(task.config, model, devices, _no_batch, {}).prepare()
            yield
