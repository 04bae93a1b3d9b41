"""Workers as jobs of Slurm: each waits in the queue, and the queue decides where it runs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.config.errors import UserError
from harness.config.schema import SlurmConfig
from harness.fleet.engines import Exit, Order, runs_of
from harness.fleet.engines.probe import probe
from harness.fleet.engines.slurm_queue import (
    Call,
    Job,
    Queue,
    Refused,
    cancel,
    check_installed,
    command,
    jobs_of_user,
    refusal,
)
from harness.fleet.engines.slurm_script import batch_options, handed_in, job_name, resources, script
from harness.records import atomic
from harness.records.status import Writer


@dataclass
class Submitted:
    """A worker as a job. `since`: when it was handed in, on the queue's clock."""

    job: str
    since: float
    exit: Exit | None = None


def stop_jobs(logs: Path, call: Call = command) -> int:
    """Tell the jobs of a sweep to save and leave, driver or none. Returns how many there were."""
    if not any(logs.glob("*.sh")) or shutil.which("squeue") is None:
        return 0
    try:
        live = [job for job in jobs_of_user(call).values() if job.exit is None and handed_in(logs, job.name)]
    except Refused as error:
        raise UserError(
            f"{logs.parent}: whether jobs train it cannot be asked now ({error}); try again"
        ) from error
    cancel([job.id for job in live], hard=False, call=call)
    return len(live)


class SlurmEngine:
    """One job a worker. A job that a driver before this one left in the queue is taken over: its name and
    the script beside the log, which are there before the job is, say what it trains."""

    def __init__(
        self, config: SlurmConfig, logs: Path, module: str = "harness.worker", call: Call = command
    ) -> None:
        self._config, self._logs, self._module, self._call = config, logs, module, call
        self._queue = Queue(call, jobs_of_user)
        self._found: dict[str, str] = {}
        """Jobs that were there before this driver, by the runs that they train."""
        self._told: dict[bool, list[str]] = {False: [], True: []}
        """Jobs to cancel at the next look, by how."""

    def check(self, orders: Sequence[Order], needs: Sequence[Path], note: Callable[[str], None]) -> None:
        check_installed("sbatch")
        self._logs.mkdir(parents=True, exist_ok=True)
        self._find()
        if not self._found:  # else a node was asked by the driver that submitted these
            probe(self, self._hand_in, self._logs, needs, note)

    def submit(self, order: Order) -> Submitted:
        if (left := self._left_behind(order)) is not None:
            return Submitted(left.id, self._queue.answered)
        try:
            return self._hand_in(order, [self._module, *runs_of(order)])
        except UserError as error:
            return Submitted("", 0.0, Exit(None, str(error)))

    def adopt(self, writer: Writer, order: Order) -> Submitted:
        if (left := self._left_behind(order)) is not None:
            return Submitted(left.id, self._queue.answered)
        if writer.alive():
            raise UserError(
                f"process {writer.pid} on {writer.host} trains this outside Slurm: continue there, or wait"
            )
        words = f"process {writer.pid} on {writer.host} held it, and no job of this sweep has it now"
        return Submitted("", 0.0, Exit(None, words))

    def poll(self, handle: Submitted) -> Exit | None:
        if handle.exit is None:
            self._pass_on()
            job = self._queue.jobs().get(handle.job)
            if job is not None:
                handle.exit = job.exit
                if job.held:
                    self.cancel(handle, hard=True)
            elif self._queue.answered > handle.since:
                handle.exit = Exit(None, f"Slurm no longer knows job {handle.job}")
        return handle.exit

    def waiting(self, handle: Submitted) -> str:
        job = self._queue.jobs().get(handle.job)
        if job is None:
            return "" if self._queue.answered > handle.since else "was handed to Slurm"
        if not job.waits:
            return ""
        return "waits in the queue" if job.reason == "None" else f"waits in the queue ({job.reason})"

    def cancel(self, handle: Submitted, *, hard: bool) -> None:
        if handle.job:
            self._told[hard].append(handle.job)

    def close(self) -> None:
        self._pass_on()

    def script(self, order: Order) -> str:
        """What `sbatch` is given for a worker."""
        return self._script(order, [self._module, *runs_of(order)])

    def _script(self, order: Order, argv: Sequence[str]) -> str:
        options = resources(self._config, order, job_name(self._logs, order)) + batch_options(self._config)
        return script(self._config, order, argv, options)

    def _hand_in(self, order: Order, argv: Sequence[str]) -> Submitted:
        """Raises UserError where Slurm would not take it."""
        file = order.log.with_suffix(".sh")
        atomic.write_bytes(file, self._script(order, argv).encode())
        since = self._queue.now()
        try:
            answer = self._call(["sbatch", "--parsable", str(file)])
        except Refused as error:
            raise UserError(refusal(str(error), self._config.partition, self._call)) from error
        return Submitted(answer.strip().partition(";")[0], since)

    def _find(self) -> None:
        """Raises UserError where Slurm does not answer: a job that nobody sees would be submitted again."""
        self._queue.check_answers()
        live = [job for job in self._queue.jobs().values() if job.exit is None]
        self._found = {run: job.id for job in live for run in handed_in(self._logs, job.name)}

    def _left_behind(self, order: Order) -> Job | None:
        """The live job that a driver before this one submitted for any of these runs."""
        jobs = [self._queue.jobs().get(self._found.get(run, "")) for run in runs_of(order)]
        return next((job for job in jobs if job is not None and job.exit is None), None)

    def _pass_on(self) -> None:
        for hard, jobs in self._told.items():
            if jobs:
                cancel(jobs, hard=hard, call=self._call)
                jobs.clear()
