"""Workers as steps of the allocation that the driver is in: a whole fleet at once, each on its part of it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.config.schema.engine import SlurmConfig
from harness.core import atomic_files
from harness.core.errors import UserError
from harness.launcher.engines.engine_api import Exit, Order, runs_of
from harness.launcher.engines.grouped_processes import said_by_first
from harness.launcher.engines.preflight import probe
from harness.launcher.engines.slurm.queue import Call, Queue, Refused, check_installed, command, steps_of
from harness.launcher.engines.slurm.script import Work, job_name, log_options, resources, step_script
from harness.records.run.status import Writer

SHAPE = ("SLURM_NNODES", "SLURM_JOB_NUM_NODES", "SLURM_NTASKS_PER_NODE")
"""Of the allocation: `srun` would ask for the same."""


@dataclass
class Step:
    """A worker as a step. `since`: when it was asked for, on the queue's clock."""

    order: Order
    name: str
    since: float
    srun: subprocess.Popen | None = None
    """That waits for it, and says how it ended; None where another driver started it."""
    exit: Exit | None = None
    wanted: tuple[str, ...] = ()
    """The `scancel` that is still to be given."""


class StepsEngine:
    """`srun --exact` waits by itself until its part of the allocation is free."""

    def __init__(
        self, config: SlurmConfig, logs: Path, module: str = "harness.worker", call: Call = command
    ) -> None:
        self._config, self._logs, self._module, self._call = config, logs, module, call
        self._allocation = os.environ.get("SLURM_JOB_ID", "")
        self._queue = Queue(call, lambda call: steps_of(self._allocation, call))
        self._ours: set[str] = set()
        """Steps that this driver started or took over: one that is listed still may have ended already."""

    def check(self, orders: Sequence[Order], needs: Sequence[Path], note: Callable[[str], None]) -> None:
        check_installed("srun")
        if not self._allocation:
            raise UserError(
                "engine.slurm.submit=steps: no allocation here (SLURM_JOB_ID is not set); give the command "
                "inside one, by salloc or sbatch, or let each worker be a job with engine.slurm.submit=jobs"
            )
        for order in orders:
            _check_fits(self._config, order)
        self._queue.check_answers()
        self._logs.mkdir(parents=True, exist_ok=True)
        probe(self, self._hand_in, self._logs, needs, note)

    def submit(self, order: Order) -> Step:
        name = job_name(self._logs, order.log.stem)
        if name in self._queue.jobs() and name not in self._ours:
            return self._take_over(order, name)
        return self._hand_in(order, [self._module, *runs_of(order)])

    def adopt(self, writer: Writer, order: Order) -> Step:
        name = job_name(self._logs, order.log.stem)
        if name not in self._queue.jobs() and writer.alive():
            raise UserError(
                f"process {writer.pid} on {writer.host} trains this outside the allocation: continue there, "
                "or wait"
            )
        return self._take_over(order, name)

    def poll(self, handle: Step) -> Exit | None:
        if handle.exit is not None:
            return handle.exit
        self._pass_on(handle)
        if handle.srun is not None:
            code = handle.srun.poll()
            if code is not None:
                handle.exit = said_by_first(handle.order, Exit(code, f"srun ended with status {code}"))
        elif handle.name not in self._queue.jobs() and self._queue.answered >= handle.since:
            handle.exit = Exit(None, "its step ended")
        return handle.exit

    def waiting(self, handle: Step) -> str:
        listed = handle.name in self._queue.jobs()
        return "" if listed or handle.exit else f"waits for a part of allocation {self._allocation}"

    def cancel(self, handle: Step, *, hard: bool) -> None:
        handle.wanted = ("scancel",) if hard else ("scancel", "--signal=USR2")
        self._pass_on(handle)

    def close(self) -> None:
        """Steps go on as long as their allocation."""

    def scripts(self, orders: Sequence[Order]) -> list[str]:
        return [self._script(order) for order in orders]

    def _script(self, order: Order) -> str:
        text = step_script(self._config, Work(order, self._module, tuple(runs_of(order))))
        return f"# {shlex.join(self._srun(order))}\n{text}"

    def _srun(self, order: Order) -> list[str]:
        name, several = job_name(self._logs, order.log.stem), order.processes > 1
        nodes = [f"--nodes=1-{order.processes}", "--kill-on-bad-exit=1"] if several else []
        asked = [*nodes, *log_options(name, order.log), *resources(self._config, order)]
        return ["srun", "--exact", *asked, "bash", str(order.log.with_suffix(".sh"))]

    def _take_over(self, order: Order, name: str) -> Step:
        self._ours.add(name)
        return Step(order, name, self._queue.answered)

    def _hand_in(self, order: Order, argv: Sequence[str]) -> Step:
        name = job_name(self._logs, order.log.stem)
        text = step_script(self._config, Work(order, argv[0], tuple(argv[1:])))
        atomic_files.write_bytes(order.log.with_suffix(".sh"), text.encode())
        step = Step(order, name, self._queue.now())
        self._ours.add(name)
        with order.log.open("ab") as log:
            step.srun = subprocess.Popen(
                self._srun(order),
                env={key: value for key, value in os.environ.items() if key not in SHAPE},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return step

    def _pass_on(self, handle: Step) -> None:
        """A step that does not run yet has nothing to save: whoever waits for it is told."""
        step = self._queue.jobs().get(handle.name)
        if not handle.wanted or handle.exit is not None or self._queue.answered < handle.since:
            return
        try:
            if step is not None:
                self._call([*handle.wanted, step.id])
                handle.wanted = ()
            elif handle.srun is not None:
                handle.srun.terminate()
                handle.wanted = ()
        except Refused:
            handle.wanted = ()  # it ended by itself


def _check_fits(config: SlurmConfig, order: Order) -> None:
    """Raises UserError for a step that would not fit into the allocation if nothing else were there."""
    given = os.environ.get("SLURM_JOB_CPUS_PER_NODE", "")
    found = re.findall(r"(\d+)(?:\(x(\d+)\))?", given)
    each = max(1, config.cpus * order.devices // order.processes)
    if found and sum(int(cpus) // each * int(nodes or 1) for cpus, nodes in found) < order.processes:
        raise UserError(
            f"{order.name} is {order.processes} tasks of {each} CPUs, which an allocation of {given} CPUs a "
            "node does not hold; ask salloc for more, or for less with mesh or engine.slurm.cpus"
        )
