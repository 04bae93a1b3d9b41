"""Workers as jobs of Slurm: each waits in the queue, and the queue decides where it runs."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.config.schema.engine import SlurmConfig
from harness.core import atomic_files
from harness.core.errors import UserError
from harness.launcher.engines.engine_api import HELD, Exit, Order, runs_of
from harness.launcher.engines.grouped_processes import said_by_first
from harness.launcher.engines.preflight import PROBE, probe
from harness.launcher.engines.slurm.queue import (
    Call,
    Job,
    Queue,
    Refused,
    cancel,
    check_installed,
    command,
    jobs_of_user,
    largest_array,
    refusal,
    said_of,
)
from harness.launcher.engines.slurm.script import (
    Work,
    alike,
    array_script,
    handed_in,
    is_alone,
    job_name,
    slurm_log,
)
from harness.records.run.status import Writer


@dataclass
class Submitted:
    """A worker as a job. `since`: when it was handed in, on the queue's clock."""

    order: Order
    job: str = ""
    """Empty while it is kept back."""
    since: float = float("inf")
    exit: Exit | None = None


def stop_jobs(logs: Path, call: Call = command) -> int:
    """Tell the jobs of a sweep to save and leave, driver or none. Returns how many there were."""
    if not any(logs.glob("*.sh")) or shutil.which("squeue") is None:
        return 0
    try:
        live = [job.id for job, _ in _live(logs, jobs_of_user(call).values())]
    except Refused as error:
        raise UserError(
            f"{logs.parent}: whether jobs train it cannot be asked now ({error}); try again"
        ) from error
    cancel(live, hard=False, call=call)
    return len(live)


def _live(logs: Path, jobs: Iterable[Job]) -> Iterator[tuple[Job, list[str]]]:
    """Jobs of a sweep that wait or run, and what they train."""
    arrays: dict[str, dict[int, list[str]]] = {}
    for job in jobs:
        if job.exit is None and job.task is not None:
            if job.name not in arrays:
                arrays[job.name] = handed_in(logs, job.name)
            if runs := arrays[job.name].get(job.task):
                yield job, runs


class SlurmEngine:
    """One job a worker, a task of an array: what is submitted between two looks and asks for the same is
    handed in together. A job that a driver before this one left in the queue is taken over: the array's name
    and its script, which is there before the job is, say what it trains."""

    def __init__(
        self, config: SlurmConfig, logs: Path, module: str = "harness.worker", call: Call = command
    ) -> None:
        self._config, self._logs, self._module, self._call = config, logs, module, call
        self._queue = Queue(call, jobs_of_user)
        self._found: dict[str, str] = {}
        """Jobs that were there before this driver, by the runs that they train."""
        self._kept: list[tuple[Submitted, Work]] = []
        """To hand in at the next look."""
        self._told: dict[bool, list[str]] = {False: [], True: []}
        """Jobs to cancel at the next look, by how."""
        self._stems: Iterator[str] | None = None
        """Names of scripts that are free."""

    def check(self, orders: Sequence[Order], needs: Sequence[Path], note: Callable[[str], None]) -> None:
        check_installed("sbatch")
        self._logs.mkdir(parents=True, exist_ok=True)
        self._find()
        if not self._found:  # else a node was asked by the driver that submitted these
            probe(self, self._hand_in_alone, self._logs, needs, note)

    def submit(self, order: Order) -> Submitted:
        if (left := self._left_behind(order)) is not None:
            return Submitted(order, left.id, self._queue.answered)
        handle = Submitted(order)
        self._kept.append((handle, self._work(order)))
        return handle

    def adopt(self, writer: Writer, order: Order) -> Submitted:
        if (left := self._left_behind(order)) is not None:
            return Submitted(order, left.id, self._queue.answered)
        if writer.alive():
            raise UserError(
                f"process {writer.pid} on {writer.host} trains this outside Slurm: continue there, or wait"
            )
        words = f"process {writer.pid} on {writer.host} held it, and no job of this sweep has it now"
        return Submitted(order, exit=Exit(None, words))

    def poll(self, handle: Submitted) -> Exit | None:
        self._pass_on()
        if handle.exit is None:
            job = self._queue.jobs().get(handle.job)
            if job is not None:
                handle.exit = job.exit and said_by_first(handle.order, self._with_words(job, job.exit))
                if job.stuck:
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
        elif handle.exit is None:
            self._kept = [each for each in self._kept if each[0] is not handle]
            handle.exit = Exit(None, "it was not handed to Slurm yet")

    def close(self) -> None:
        self._kept.clear()
        self._pass_on()

    def scripts(self, orders: Sequence[Order]) -> list[str]:
        """What `sbatch` would be given for these workers."""
        pieces = self._pieces([(Submitted(order), self._work(order)) for order in orders])
        return [
            array_script(self._config, self._logs, stem, [work for _, work in piece])
            for stem, piece in zip(self._free_stems(), pieces, strict=False)
        ]

    def _work(self, order: Order) -> Work:
        return Work(order, self._module, tuple(runs_of(order)))

    def _hand_in_alone(self, order: Order, argv: Sequence[str]) -> Submitted:
        """Raises UserError where Slurm would not take it."""
        handle = Submitted(order)
        self._hand_in([(handle, Work(order, argv[0], tuple(argv[1:])))], order.log.stem)
        if handle.exit is not None:
            raise UserError(handle.exit.words)
        return handle

    def _pieces(self, kept: Sequence[tuple[Submitted, Work]]) -> list[list[tuple[Submitted, Work]]]:
        """Arrays: what asks for the same, as much as Slurm takes in one."""
        groups: dict[str, list[tuple[Submitted, Work]]] = {}
        for each in kept:
            groups.setdefault(alike(self._config, each[1]), []).append(each)
        most = largest_array(self._call) if len(kept) > len(groups) else 1
        return [
            group[first : first + most] for group in groups.values() for first in range(0, len(group), most)
        ]

    def _hand_in(self, piece: Sequence[tuple[Submitted, Work]], stem: str) -> None:
        """As one array; where Slurm refuses it, each of its workers has ended."""
        file, since = self._logs / f"{stem}.sh", self._queue.now()
        text = array_script(self._config, self._logs, stem, [work for _, work in piece])
        atomic_files.write_bytes(file, text.encode())
        try:
            job = self._call(["sbatch", "--parsable", str(file)]).strip().partition(";")[0]
        except Refused as error:
            end = Exit(None, refusal(str(error), self._config, self._call))
            for handle, _ in piece:
                handle.exit = end
            return
        for index, (handle, _) in enumerate(piece):
            handle.job, handle.since = f"{job}_{index}", since

    def _free_stems(self) -> Iterator[str]:
        numbers = [file.stem.partition("-")[2] for file in self._logs.glob("jobs-*.sh")]
        first = 1 + max((int(number) for number in numbers if number.isdigit()), default=0)
        return (f"jobs-{number}" for number in itertools.count(first))

    def _find(self) -> None:
        """Raises UserError where Slurm does not answer: a job that nobody sees would be submitted again."""
        self._queue.check_answers()
        live = [*_live(self._logs, self._queue.jobs().values())]
        asks = job_name(self._logs, PROBE)
        self._told[True] += [job.id for job, _ in live if job.name == asks]  # nobody waits for its answer
        self._found = {run: job.id for job, runs in live for run in runs if job.name != asks}

    def _with_words(self, job: Job, end: Exit) -> Exit:
        """With what Slurm said where the worker failed, or may not even have begun."""
        if end.code in (None, 0, HELD) and job.state != "OUT_OF_MEMORY":
            return end
        log, alone = slurm_log(self._logs, job.name), is_alone(self._logs, job.name)
        return replace(end, said=said_of(job.number, log, alone=alone))

    def _left_behind(self, order: Order) -> Job | None:
        """The live job that a driver before this one submitted for any of these runs."""
        jobs = [self._queue.jobs().get(self._found.get(run, "")) for run in runs_of(order)]
        return next((job for job in jobs if job is not None and job.exit is None), None)

    def _pass_on(self) -> None:
        kept, self._kept = self._kept, []
        self._stems = self._stems or self._free_stems()
        for piece in self._pieces(kept) if kept else ():
            self._hand_in(piece, next(self._stems))
        for hard, jobs in self._told.items():
            if jobs:
                cancel(jobs, hard=hard, call=self._call)
                jobs.clear()
