"""Engine for workers that are Slurm jobs: Slurm decides when and where each runs."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.config.schema.engine import SlurmConfig
from harness.core import atomic_files
from harness.core.errors import UserError
from harness.launcher.engines.engine_api import ALREADY_RUNNING, Exit, WorkerSpec, lost_exit, run_args
from harness.launcher.engines.preflight import PREFLIGHT_NAME, run_preflight
from harness.launcher.engines.slurm import queue, script
from harness.launcher.engines.slurm.queue import Call, run_command
from harness.launcher.engines.worker_processes import exit_of_group
from harness.records.run.provenance import code_hash
from harness.records.run.status import ProcessInfo


@dataclass
class SubmittedJob:
    """A worker as a job. `submitted_at`: seconds on the monotonic clock."""

    spec: WorkerSpec
    job: str = ""
    """Job id; empty until it is submitted."""
    submitted_at: float = float("inf")
    exit: Exit | None = None


JobAndCommand = tuple[SubmittedJob, script.WorkerCommand]


def stop_jobs(logs: Path, call: Call = run_command) -> int:
    """Ask the jobs of a sweep to save and exit, without its driver. Returns their number."""
    if not any(logs.glob("*.sh")) or shutil.which("squeue") is None:
        return 0
    try:
        live = [job.id for job, _ in _live_jobs(logs, queue.list_user_jobs(call).values())]
    except queue.CommandFailed as error:
        raise UserError(f"cannot ask Slurm for the jobs of {logs.parent} ({error}). Try again") from error
    queue.cancel_jobs(live, hard=False, call=call)
    return len(live)


def _live_jobs(logs: Path, jobs: Iterable[queue.SlurmJob]) -> Iterator[tuple[queue.SlurmJob, list[str]]]:
    """Yield the pending and running jobs of a sweep, each with its run directories."""
    arrays: dict[str, dict[int, list[str]]] = {}
    for job in jobs:
        if job.exit is None and job.array_task is not None:
            if job.name not in arrays:
                arrays[job.name] = script.submitted_runs(logs, job.name)
            if runs := arrays[job.name].get(job.array_task):
                yield job, runs


class SlurmEngine:
    """Engine with one array task per worker. Workers that are submitted between two polls and need the same
    resources form one array. Jobs of an earlier driver are taken over: the array's name and its script,
    which is written before the job is submitted, say which runs it trains."""

    def __init__(
        self, config: SlurmConfig, logs: Path, module: str = "harness.worker", call: Call = run_command
    ) -> None:
        self._config, self._logs, self._module, self._call = config, logs, module, call
        self._queue = queue.Queue(call, queue.list_user_jobs)
        self._earlier_jobs: dict[str, str] = {}
        """Ids of the jobs of earlier drivers, by run directory."""
        self._is_tested = False
        """True if an earlier driver has run the test job with this version of the harness."""
        self._unsubmitted: list[JobAndCommand] = []
        """Jobs to submit at the next poll."""
        self._to_cancel: dict[bool, list[str]] = {False: [], True: []}
        """Ids of the jobs to cancel at the next poll; the key is `hard`."""
        self._script_names: Iterator[str] | None = None
        """Script names that are not in use."""

    def check(self, specs: Sequence[WorkerSpec], files: Sequence[Path], note: Callable[[str], None]) -> None:
        """Find earlier jobs, else run the test job. Raises UserError if a worker could not run."""
        queue.check_installed("sbatch")
        self._logs.mkdir(parents=True, exist_ok=True)
        self._find_earlier_jobs()
        if not self._is_tested:
            run_preflight(self, self._submit_now, self._logs, files, note)

    def submit(self, spec: WorkerSpec) -> SubmittedJob:
        """Take over the earlier job of these runs, or submit a new one at the next poll."""
        handle = self._find_earlier(spec)
        if handle is None:
            handle = SubmittedJob(spec)
            self._unsubmitted.append((handle, self._command_of(spec)))
        return handle

    def adopt(self, writer: ProcessInfo, spec: WorkerSpec) -> SubmittedJob:
        """Take over the job that trains these runs. Raises UserError for a live process outside Slurm."""
        return self._find_earlier(spec) or SubmittedJob(spec, exit=lost_exit(writer, "Slurm"))

    def poll(self, handle: SubmittedJob) -> Exit | None:
        """Return how the worker ended; None while its job waits or runs."""
        self._flush()
        if handle.exit is None:
            job = self._queue.jobs().get(handle.job)
            if job is not None:
                if job.exit is not None:
                    handle.exit = exit_of_group(handle.spec, self._with_scheduler_message(job, job.exit))
                if job.never_starts:
                    self.cancel(handle, hard=True)
            elif self._queue.answered_at > handle.submitted_at:
                handle.exit = Exit(None, f"Slurm no longer knows job {handle.job}")
        return handle.exit

    def waiting(self, handle: SubmittedJob) -> str:
        """Return why the job is pending; empty once it runs."""
        job = self._queue.jobs().get(handle.job)
        if job is None:
            return "" if self._queue.answered_at > handle.submitted_at else "was submitted to Slurm"
        if not job.is_pending:
            return ""
        return "waits in the queue" if job.reason == "None" else f"waits in the queue ({job.reason})"

    def cancel(self, handle: SubmittedJob, *, hard: bool) -> None:
        """Cancel the job at the next poll: let it save, or kill it if `hard`."""
        if handle.job:
            self._to_cancel[hard].append(handle.job)
        elif handle.exit is None:
            self._unsubmitted = [entry for entry in self._unsubmitted if entry[0] is not handle]
            handle.exit = Exit(None, "it was not submitted to Slurm yet")

    def close(self) -> None:
        """Send the pending cancellations and submit nothing more."""
        self._unsubmitted.clear()
        self._flush()

    def scripts(self, specs: Sequence[WorkerSpec]) -> list[str]:
        """Return the scripts that `sbatch` would get for these workers."""
        arrays = self._split_into_arrays([(SubmittedJob(spec), self._command_of(spec)) for spec in specs])
        return [
            script.array_script(self._config, self._logs, stem, [command for _, command in array])
            for stem, array in zip(self._free_script_names(), arrays, strict=False)
        ]

    def _command_of(self, spec: WorkerSpec) -> script.WorkerCommand:
        return script.WorkerCommand(spec, [self._module, *run_args(spec)])

    def _submit_now(self, spec: WorkerSpec, argv: Sequence[str]) -> SubmittedJob:
        """Submit one job at once. Raises UserError if Slurm refuses it."""
        handle = SubmittedJob(spec)
        self._submit_array([(handle, script.WorkerCommand(spec, argv))], spec.log.stem)
        if handle.exit is not None:
            raise UserError(handle.exit.message)
        return handle

    def _split_into_arrays(self, jobs: Sequence[JobAndCommand]) -> list[list[JobAndCommand]]:
        """Group jobs with equal needs into arrays of at most the size that Slurm allows."""
        groups: dict[str, list[JobAndCommand]] = {}
        for entry in jobs:
            groups.setdefault(script.array_key(self._config, entry[1]), []).append(entry)
        limit = queue.max_array_size(self._call) if len(jobs) > len(groups) else 1
        slices = [(group, first) for group in groups.values() for first in range(0, len(group), limit)]
        return [group[first : first + limit] for group, first in slices]

    def _submit_array(self, jobs: Sequence[JobAndCommand], stem: str) -> None:
        """Submit jobs as one array. If Slurm refuses it, each job gets that as its exit."""
        file, submitted_at = self._logs / f"{stem}.sh", time.monotonic()
        text = script.array_script(self._config, self._logs, stem, [command for _, command in jobs])
        atomic_files.write_bytes(file, text.encode())
        try:
            job = self._call(["sbatch", "--parsable", str(file)]).strip().partition(";")[0]
        except queue.CommandFailed as error:
            end = Exit(None, queue.refusal_message(str(error), self._config, self._call))
            for handle, _ in jobs:
                handle.exit = end
            return
        for index, (handle, _) in enumerate(jobs):
            handle.job, handle.submitted_at = f"{job}_{index}", submitted_at

    def _free_script_names(self) -> Iterator[str]:
        numbers = [file.stem.partition("-")[2] for file in self._logs.glob("jobs-*.sh")]
        first = 1 + max((int(number) for number in numbers if number.isdigit()), default=0)
        return (f"jobs-{number}" for number in itertools.count(first))

    def _find_earlier_jobs(self) -> None:
        """Find the live jobs of earlier drivers, so that none is submitted twice, and cancel their test jobs.
        Raises UserError if Slurm does not answer, or for a pending job of another version of the harness."""
        self._queue.check_answers()
        live = [*_live_jobs(self._logs, self._queue.jobs().values())]
        preflight_name = script.job_name(self._logs, PREFLIGHT_NAME)
        workers = [(job, runs) for job, runs in live if job.name != preflight_name]
        names = {job.name for job, _ in workers}
        other_code = {name for name in names if script.submitted_code(self._logs, name) != code_hash()}
        self._is_tested = bool(names - other_code)
        _check_code([job.id for job, _ in workers if job.is_pending and job.name in other_code])
        self._to_cancel[True] += [job.id for job, _ in live if job.name == preflight_name]
        self._earlier_jobs = {run: job.id for job, runs in workers for run in runs}

    def _with_scheduler_message(self, job: queue.SlurmJob, end: Exit) -> Exit:
        """Add Slurm's own message to the exit of a worker that failed or may never have started."""
        if end.code in (None, 0, ALREADY_RUNNING) and job.state != "OUT_OF_MEMORY":
            return end
        log, single_job = script.slurm_log(self._logs, job.name), script.has_single_task(self._logs, job.name)
        message = queue.last_slurm_message(job.raw_id, log, single_job=single_job)
        return replace(end, scheduler_message=message)

    def _find_earlier(self, spec: WorkerSpec) -> SubmittedJob | None:
        """Return the live job that an earlier driver submitted for any of these runs."""
        jobs = [self._queue.jobs().get(self._earlier_jobs.get(run, "")) for run in run_args(spec)]
        live = [job for job in jobs if job is not None and job.exit is None]
        return SubmittedJob(spec, live[0].id, self._queue.answered_at) if live else None

    def _flush(self) -> None:
        """Submit the new jobs and send the cancellations."""
        new_jobs, self._unsubmitted = self._unsubmitted, []
        self._script_names = self._script_names or self._free_script_names()
        for array in self._split_into_arrays(new_jobs) if new_jobs else ():
            self._submit_array(array, next(self._script_names))
        for hard, jobs in self._to_cancel.items():
            if jobs:
                queue.cancel_jobs(jobs, hard=hard, call=self._call)
                jobs.clear()


def _check_code(ids: Sequence[str]) -> None:
    """Raise UserError for pending jobs of other code: they would train what the runs' records do not name."""
    if ids:
        arrays = sorted({id.partition("_")[0] for id in ids}, key=int)
        count = f" (and {len(ids) - 1} more)" if len(ids) > 1 else ""
        raise UserError(
            f"job {ids[0]}{count} of this sweep waits in the queue with another version of the harness. "
            f"Run `scancel --state=PENDING {' '.join(arrays)}`, then give the same command again. "
            "Nothing is lost: that cancels only jobs that are not running"
        )
