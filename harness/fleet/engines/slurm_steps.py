"""Workers as steps of the allocation that the driver is in: a whole fleet at once, each on its part of it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.config.errors import UserError
from harness.config.schema import SlurmConfig
from harness.fleet.engines import Exit, Order, runs_of
from harness.fleet.engines.probe import probe
from harness.fleet.engines.slurm_queue import Call, Queue, Refused, check_installed, command, steps_of
from harness.fleet.engines.slurm_script import job_name, resources, script
from harness.records import atomic
from harness.records.status import Writer


@dataclass
class Step:
    """A worker as a step. `since`: when it was asked for, on the queue's clock."""

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
        self._queue.check_answers()
        self._logs.mkdir(parents=True, exist_ok=True)
        probe(self, self._hand_in, self._logs, needs, note)

    def submit(self, order: Order) -> Step:
        name = job_name(self._logs, order)
        if name in self._queue.jobs() and name not in self._ours:
            return self._take_over(name)
        return self._hand_in(order, [self._module, *runs_of(order)])

    def adopt(self, writer: Writer, order: Order) -> Step:
        name = job_name(self._logs, order)
        if name not in self._queue.jobs() and writer.alive():
            raise UserError(
                f"process {writer.pid} on {writer.host} trains this outside the allocation: continue there, "
                "or wait"
            )
        return self._take_over(name)

    def poll(self, handle: Step) -> Exit | None:
        if handle.exit is not None:
            return handle.exit
        self._pass_on(handle)
        if handle.srun is not None:
            code = handle.srun.poll()
            handle.exit = None if code is None else Exit(code, f"srun ended with status {code}")
        elif handle.name not in self._queue.jobs() and self._queue.answered >= handle.since:
            handle.exit = Exit(None, "its step ended")
        return handle.exit

    def waiting(self, handle: Step) -> str:
        listed = handle.name in self._queue.jobs()
        return "" if listed or handle.exit else f"waits for a part of allocation {self._allocation}"

    def cancel(self, handle: Step, *, hard: bool) -> None:
        handle.wanted = ("scancel",) if hard else ("scancel", "--signal=TERM")
        self._pass_on(handle)

    def close(self) -> None:
        """Steps go on as long as their allocation."""

    def script(self, order: Order) -> str:
        options = resources(self._config, order, job_name(self._logs, order))
        text = script(self._config, order, [self._module, *runs_of(order)])
        return f"# srun --exact {' '.join(options)}\n{text}"

    def _take_over(self, name: str) -> Step:
        self._ours.add(name)
        return Step(name, self._queue.answered)

    def _hand_in(self, order: Order, argv: Sequence[str]) -> Step:
        file, name = order.log.with_suffix(".sh"), job_name(self._logs, order)
        atomic.write_bytes(file, script(self._config, order, argv).encode())
        step = Step(name, self._queue.now())
        self._ours.add(name)
        with order.log.open("ab") as log:
            step.srun = subprocess.Popen(
                ["srun", "--exact", *resources(self._config, order, name), "bash", str(file)],
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
