"""Engine for workers that are steps of the driver's Slurm allocation, each on its part of the nodes."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.config.schema.engine import SlurmConfig
from harness.core import atomic_files
from harness.core.errors import UserError
from harness.launcher.engines.engine_api import Exit, WorkerSpec, lost_exit, run_args
from harness.launcher.engines.preflight import run_preflight
from harness.launcher.engines.slurm import queue, script
from harness.launcher.engines.slurm.queue import Call, run_command
from harness.launcher.engines.worker_processes import exit_of_group
from harness.records.run.status import ProcessInfo

ALLOCATION_VARIABLES = ("SLURM_NNODES", "SLURM_JOB_NUM_NODES", "SLURM_NTASKS_PER_NODE")
"""Variables of the allocation, removed because `srun` would request the same sizes for a step."""


@dataclass
class SlurmStep:
    """A worker as a step. `submitted_at`: seconds on the monotonic clock."""

    spec: WorkerSpec
    name: str
    submitted_at: float
    srun: subprocess.Popen | None = None
    """The `srun` process of the step, which has its exit status; None if another driver started it."""
    exit: Exit | None = None
    pending_cancel: tuple[str, ...] = ()
    """The `scancel` command that is still to be sent."""


class StepsEngine:
    """Engine with one `srun --exact` per worker, which waits until its part of the allocation is free."""

    def __init__(
        self, config: SlurmConfig, logs: Path, module: str = "harness.worker", call: Call = run_command
    ) -> None:
        self._config, self._logs, self._module, self._call = config, logs, module, call
        self._allocation = os.environ.get("SLURM_JOB_ID", "")
        self._queue = queue.Queue(call, lambda call: queue.list_steps(self._allocation, call))
        self._own_steps: set[str] = set()
        """Names of the steps of this driver, also those taken over; a listed one may have ended already."""

    def check(self, specs: Sequence[WorkerSpec], files: Sequence[Path], note: Callable[[str], None]) -> None:
        """Raise UserError without an allocation that holds each worker; then run the test job."""
        queue.check_installed("srun")
        if not self._allocation:
            raise UserError(
                "engine.slurm.submit=steps: no allocation here (SLURM_JOB_ID is not set). Run the command "
                "inside one, with salloc or sbatch, or make each worker a job with engine.slurm.submit=jobs"
            )
        for spec in specs:
            _check_fits(self._config, spec)
        self._queue.check_answers()
        self._logs.mkdir(parents=True, exist_ok=True)
        run_preflight(self, self._start_step, self._logs, files, note)

    def submit(self, spec: WorkerSpec) -> SlurmStep:
        """Take over the earlier step of this name, or start a new one."""
        name = script.job_name(self._logs, spec.log.stem)
        if name in self._queue.jobs() and name not in self._own_steps:
            return self._adopt_step(spec, name)
        return self._start_step(spec, [self._module, *run_args(spec)])

    def adopt(self, writer: ProcessInfo, spec: WorkerSpec) -> SlurmStep:
        """Take over the step of this name. Raises UserError for a live process outside the allocation."""
        name = script.job_name(self._logs, spec.log.stem)
        if name not in self._queue.jobs():
            lost_exit(writer, "the allocation")
        return self._adopt_step(spec, name)

    def poll(self, handle: SlurmStep) -> Exit | None:
        """Return how the worker ended; None while its step waits or runs."""
        if handle.exit is not None:
            return handle.exit
        self._send_cancel(handle)
        if handle.srun is not None:
            code = handle.srun.poll()
            if code is not None:
                handle.exit = exit_of_group(handle.spec, Exit(code, f"srun ended with status {code}"))
        elif handle.name not in self._queue.jobs() and self._queue.answered_at >= handle.submitted_at:
            handle.exit = Exit(None, "its step ended")
        return handle.exit

    def waiting(self, handle: SlurmStep) -> str:
        """Return why the step has not started; empty once it runs."""
        is_running = handle.name in self._queue.jobs()
        return "" if is_running or handle.exit else f"waits for a part of allocation {self._allocation}"

    def cancel(self, handle: SlurmStep, *, hard: bool) -> None:
        """Ask the step to save and exit, or kill it if `hard`."""
        handle.pending_cancel = ("scancel",) if hard else ("scancel", "--signal=USR2")
        self._send_cancel(handle)

    def close(self) -> None:
        """Do nothing: steps go on as long as their allocation."""

    def scripts(self, specs: Sequence[WorkerSpec]) -> list[str]:
        """Return the script of each worker, with its `srun` command in a comment."""
        commands = [script.WorkerCommand(spec, [self._module, *run_args(spec)]) for spec in specs]
        comments = [f"# {shlex.join(self._srun_command(spec))}\n" for spec in specs]
        texts = [script.step_script(self._config, command) for command in commands]
        return list(map("".join, zip(comments, texts, strict=True)))

    def _srun_command(self, spec: WorkerSpec) -> list[str]:
        name, is_group = script.job_name(self._logs, spec.log.stem), spec.processes > 1
        nodes = [f"--nodes=1-{spec.processes}", "--kill-on-bad-exit=1"] if is_group else []
        options = [*nodes, *script.log_options(name, spec.log), *script.resource_options(self._config, spec)]
        return ["srun", "--exact", *options, "bash", str(spec.log.with_suffix(".sh"))]

    def _adopt_step(self, spec: WorkerSpec, name: str) -> SlurmStep:
        self._own_steps.add(name)
        return SlurmStep(spec, name, self._queue.answered_at)

    def _start_step(self, spec: WorkerSpec, argv: Sequence[str]) -> SlurmStep:
        name = script.job_name(self._logs, spec.log.stem)
        text = script.step_script(self._config, script.WorkerCommand(spec, argv))
        atomic_files.write_bytes(spec.log.with_suffix(".sh"), text.encode())
        step = SlurmStep(spec, name, time.monotonic())
        self._own_steps.add(name)
        with spec.log.open("ab") as log:
            step.srun = subprocess.Popen(
                self._srun_command(spec),
                env={key: value for key, value in os.environ.items() if key not in ALLOCATION_VARIABLES},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return step

    def _send_cancel(self, handle: SlurmStep) -> None:
        """Send the pending cancel to the step, or to its `srun` if the step has not started."""
        step = self._queue.jobs().get(handle.name)
        list_is_older = self._queue.answered_at < handle.submitted_at
        if not handle.pending_cancel or handle.exit is not None or list_is_older:
            return
        if step is not None:
            with contextlib.suppress(queue.CommandFailed):  # it ended by itself
                self._call([*handle.pending_cancel, step.id])
            handle.pending_cancel = ()
        elif handle.srun is not None:
            handle.srun.terminate()
            handle.pending_cancel = ()


def _check_fits(config: SlurmConfig, spec: WorkerSpec) -> None:
    """Raise UserError for a step that would not fit into the empty allocation."""
    cpus_per_node = os.environ.get("SLURM_JOB_CPUS_PER_NODE", "")
    groups = re.findall(r"(\d+)(?:\(x(\d+)\))?", cpus_per_node)
    cpus_per_task = max(1, config.cpus * spec.devices // spec.processes)
    capacity = sum(int(cpus) // cpus_per_task * int(nodes or 1) for cpus, nodes in groups)
    if groups and capacity < spec.processes:
        raise UserError(
            f"{spec.name} needs {spec.processes} tasks of {cpus_per_task} CPUs, but the allocation has "
            f"{cpus_per_node} CPUs per node. Ask salloc for more, or lower mesh or engine.slurm.cpus"
        )
