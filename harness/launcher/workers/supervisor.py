"""The supervisor of a sweep: it starts, watches and restarts workers until every run has ended. The
supervisor restarts the runs of lost workers; a worker restarts its own, up to `engine.attempts` times."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from harness.config.schema.engine import EngineConfig
from harness.config.worker_options import WorkerOptions
from harness.launcher.engines.engine_api import ALREADY_RUNNING, Engine, Exit, WorkerSpec
from harness.launcher.engines.worker_processes import exit_message, log_sizes
from harness.launcher.run_directories import RunAction, set_state
from harness.launcher.runs import Run
from harness.launcher.sweep_lock import Interrupted
from harness.launcher.workers import retries
from harness.launcher.workers.progress import Display
from harness.launcher.workers.retries import RetryPolicy, Watchdog, total_steps
from harness.records.run.run_lock import worker_of
from harness.records.run.status import State, Status, read_status

TICK_SECONDS = 0.25


@dataclass(eq=False)
class Assignment:
    """Runs that share a worker."""

    name: str
    runs: list[Run]
    devices: int
    """Number of devices of the whole worker, so that a run restarted alone gets an equal process."""
    not_before: float = 0.0
    """Earliest start, in seconds of the supervisor's clock."""
    failures: int = 0
    """Failures in a row, which count against the attempts of each of its runs."""
    cores: int = 0
    """Number of cores on which its simulated devices compute; 0: all of the machine."""


@dataclass(eq=False)
class ActiveWorker:
    """A worker that was started and has not ended."""

    assignment: Assignment
    spec: WorkerSpec
    handle: Any
    watchdog: Watchdog
    runs: tuple[Run, ...]
    """All runs that it started with."""
    steps_before: int
    """Total steps of its runs when it was started."""
    log_sizes_before: Mapping[Path, int]
    """Bytes of its logs before it was started."""
    kill_reason: str = ""
    """Reason for which the supervisor killed it; empty if it did not."""
    messages: set[str] = field(default_factory=set)
    """Messages about its runs that were printed."""


@dataclass
class Supervisor:
    """The supervisor. `prepare` is called before each start of a run; `make_spec` makes a worker's spec."""

    engine: Engine
    settings: EngineConfig
    display: Display
    workers: int
    prepare: Callable[[Run], RunAction]
    make_spec: Callable[[Assignment], WorkerSpec]
    devices: int = 0
    """Number of devices that the workers share; 0 means that each has its own."""
    clock: Callable[[], float] = time.monotonic
    active: list[ActiveWorker] = field(default_factory=list)
    waiting: list[Assignment] = field(default_factory=list)
    interruptions: int = 0
    """Number of interrupts by the user, counted by a signal handler and read between two polls."""
    failed: dict[str, str] = field(default_factory=dict)
    """Reason for each run that was given up, by name."""
    _stop_filters: list[Callable[[Run], bool]] = field(default_factory=list)
    """Filters of the runs that stop because another run failed."""
    _reported_reasons: set[str] = field(default_factory=set)
    """Reasons of waiting workers that were printed."""
    _stopping: bool = False
    _retries: RetryPolicy = field(init=False)

    def __post_init__(self) -> None:
        self._retries = RetryPolicy(self.settings)

    def run(self, assignments: Sequence[Assignment]) -> None:
        """Return when every run has ended, waits at its interim look, or was given up. Raises Interrupted if
        the user interrupted it."""
        self.waiting = [*assignments]
        while self.active or self.waiting:
            if self.interruptions and not self._stopping:
                self._ask_to_save()
            if self.interruptions > 1:
                self.display.note("the workers save and exit on their own")
                break
            self._start_waiting()
            self._poll_workers()
            time.sleep(TICK_SECONDS)
        if self._stopping:
            raise Interrupted

    # Starting

    def _start_waiting(self) -> None:
        now = self.clock()
        for assignment in [entry for entry in self.waiting if entry.not_before <= now]:
            if len(self.active) >= self.workers:
                return
            if self._has_devices_for(assignment):
                self.waiting.remove(assignment)
                self._start(assignment)

    def _has_devices_for(self, assignment: Assignment) -> bool:
        """Return whether enough devices are free. A worker that is too large for this machine runs alone."""
        if not self.devices:  # do not add up thousands of workers
            return True
        used = sum(worker.assignment.devices for worker in self.active)
        return not used or used + assignment.devices <= self.devices

    def _start(self, assignment: Assignment) -> None:
        ready = {run.name: self.prepare(run) for run in assignment.runs}
        running = [run for run in assignment.runs if ready[run.name] is RunAction.follow]
        assignment.runs = [run for run in assignment.runs if ready[run.name] is RunAction.train]
        self._watch_running(running, assignment)
        for run in assignment.runs:
            set_state(run.dir, State.pending, "")  # remove the message of an earlier attempt
        if assignment.runs:
            self._activate(assignment, self.engine.submit)

    def _watch_running(self, runs: list[Run], origin: Assignment) -> None:
        """Watch runs that live workers train, grouped by worker."""
        groups: dict[Any, list[Run]] = {}
        for run in runs:
            groups.setdefault(worker_of(run.dir), []).append(run)
        for writer, group in groups.items():
            assignment = dataclasses.replace(origin, runs=group, not_before=0.0, failures=0)
            if writer is None or not writer.pid:
                self._requeue(assignment, 1.0)
            else:
                self._activate(assignment, partial(self.engine.adopt, writer))

    def _activate(self, assignment: Assignment, start: Callable[[WorkerSpec], Any]) -> None:
        spec, runs = self.make_spec(assignment), (*assignment.runs,)
        sizes = log_sizes(spec)
        handle, watchdog = start(spec), Watchdog(self.clock())
        self.active.append(ActiveWorker(assignment, spec, handle, watchdog, runs, total_steps(runs), sizes))
        self._retries.begin(runs)

    # Watching

    def _poll_workers(self) -> None:
        running: list[Run] = []
        for worker in [*self.active]:
            end = self.engine.poll(worker.handle)
            if end is not None:
                self.active.remove(worker)
                self._handle_exit(worker, end)
                continue
            if reason := self.engine.waiting(worker.handle):
                self._report_waiting(worker, reason)
                worker.watchdog = Watchdog(self.clock())  # it may be waiting again after a requeue
                continue
            statuses = [(run, read_status(run.dir)) for run in worker.assignment.runs]
            worker.watchdog.update([(run.dir, status) for run, status in statuses], self.clock())
            self._check_stall(worker)
            running += self._report_ended(worker, statuses)
        self.display.show(running)

    def _report_ended(self, worker: ActiveWorker, statuses: Sequence[tuple[Run, Status]]) -> list[Run]:
        """Report the runs that ended while others of their worker go on. Returns the running ones."""
        for run, status in statuses:
            if status.state.is_final:
                worker.assignment.runs.remove(run)
                self._report_final(run, status)
            elif status.state is State.pending and status.message:  # its worker restarts it
                message = f"{run.name}: {status.message}"
                if message not in worker.messages:
                    self.display.note(message)
                worker.messages.add(message)
        return [run for run, status in statuses if status.state is State.running]

    def _report_waiting(self, worker: ActiveWorker, reason: str) -> None:
        """Print each reason once: thousands of workers may wait for the same one."""
        if reason not in self._reported_reasons:
            self.display.note(f"{worker.assignment.name} {reason}")
            self._reported_reasons.add(reason)

    def _check_stall(self, worker: ActiveWorker) -> None:
        silent = worker.watchdog.silent_seconds()
        if silent > self.settings.stall_seconds and not worker.kill_reason:
            worker.kill_reason = f"no progress for {silent:.0f} s"
            self.display.note(f"{worker.assignment.name}: {worker.kill_reason}; its worker is killed")
            self.engine.cancel(worker.handle, hard=True)

    # Ending

    def _handle_exit(self, worker: ActiveWorker, end: Exit) -> None:
        if end.code == ALREADY_RUNNING:
            self._requeue(worker.assignment, 1.0)
            return
        if end.preempted:
            self.display.note(f"{worker.assignment.name}: {end.message}")
        to_retry: list[Run] = []
        was_running = any(read_status(run.dir).state is State.running for run in worker.assignment.runs)
        given_up = (State.failed, State.oom)  # these first: their end may stop others
        for run in sorted(worker.assignment.runs, key=lambda run: read_status(run.dir).state not in given_up):
            status = self._final_status(run, worker, end, was_running)
            if status.state.is_final:
                self._report_final(run, status)
            elif status.state is State.waiting:
                continue
            elif self._stopping or self._is_dropped(run):
                set_state(run.dir, State.preempted, "told to leave; the same command continues")
            elif status.state is State.preempted and not end.preempted and self._is_stuck(run, worker):
                set_state(run.dir, State.failed, retries.no_progress_message(self.settings))
                self._give_up(run, read_status(run.dir))
            elif self._should_retry(run, status):
                to_retry.append(run)
        self._retry(worker.assignment, to_retry)

    def _report_final(self, run: Run, status: Status) -> None:
        self.display.finished(run, status)
        if not status.state.ended:
            self.failed[run.name] = status.message or status.state.value

    def _final_status(self, run: Run, worker: ActiveWorker, end: Exit, was_running: bool) -> Status:
        """Return the run's status, set to lost (or preempted) if its worker ended without a final one. A run
        that only waited while others of its worker ran stays pending."""
        status = read_status(run.dir)
        is_active = status.state in retries.ACTIVE_STATES
        cut_off = is_active and not (was_running and status.state is State.pending)
        if cut_off or (end.preempted and status.state is State.lost):  # as its other processes noted
            message = worker.kill_reason or exit_message(worker.spec, end, worker.log_sizes_before)
            set_state(run.dir, State.preempted if end.preempted else State.lost, message)
        return read_status(run.dir)

    def _should_retry(self, run: Run, status: Status) -> bool:
        if not self._retries.should_retry(run, status):
            self._give_up(run, status)
            return False
        if status.state not in retries.NOT_A_FAILURE:
            self.display.note(f"{run.name}: {status.message or status.state.value}; it is started again")
        return True

    def _is_stuck(self, run: Run, worker: ActiveWorker) -> bool:
        return self._retries.makes_no_progress(run, idle=total_steps(worker.runs) <= worker.steps_before)

    def _give_up(self, run: Run, status: Status) -> None:
        self.failed[run.name] = status.message or status.state.value
        self.display.finished(run, status)
        policy = self.settings.on_failure.value
        if policy == "stop_all":
            self._stop_runs(lambda _: True)
        elif policy == "stop_block":
            self._stop_runs(lambda candidate: candidate.block == run.block)

    def _stop_runs(self, is_affected: Callable[[Run], bool]) -> None:
        """Give up the affected runs that wait; ask their running workers to save and exit."""
        self._stop_filters.append(is_affected)
        for run in [run for assignment in self.waiting for run in assignment.runs]:
            self._is_dropped(run)
        self.waiting = [entry for entry in self.waiting if not any(map(is_affected, entry.runs))]
        for worker in self.active:
            if any(map(is_affected, worker.assignment.runs)):
                self.engine.cancel(worker.handle, hard=False)

    def _is_dropped(self, run: Run) -> bool:
        dropped = any(is_affected(run) for is_affected in self._stop_filters)
        if dropped:
            self.failed.setdefault(run.name, "stopped because another run failed")
        return dropped

    def _retry(self, origin: Assignment, runs: Sequence[Run]) -> None:
        """Restart runs together, but a run with one attempt left alone and last. So a run that kills its
        whole process is found, and harms no other run."""
        counts = {run.name: self._retries.failure_count(run) for run in runs}
        last = self.settings.attempts - 1
        joint = [run for run in runs if len(runs) == 1 or not 0 < last <= counts[run.name]]
        if joint:
            self._requeue_runs(origin, joint, counts)
        for run in [run for run in runs if run not in joint]:
            self._requeue_runs(origin, [run], counts, at_the_end=True)

    def _requeue_runs(
        self, origin: Assignment, runs: list[Run], counts: Mapping[str, int], at_the_end: bool = False
    ) -> None:
        failures = max(counts[run.name] for run in runs)
        wait = worker_options(self.settings).backoff(failures) if failures else 0.0
        name = runs[0].name if at_the_end else origin.name
        assignment = dataclasses.replace(origin, name=name, runs=runs, failures=failures)
        self._requeue(assignment, wait, at_the_end=at_the_end)

    def _requeue(self, assignment: Assignment, wait: float, *, at_the_end: bool = False) -> None:
        """Put an assignment first in the queue, so that started runs are finished before new ones start."""
        assignment.not_before = self.clock() + wait
        self.waiting.insert(len(self.waiting) if at_the_end else 0, assignment)

    def _ask_to_save(self) -> None:
        """Ask every worker to save and exit; the loop waits for them until a second interrupt."""
        self._stopping, self.waiting = True, []
        self.display.note("every run saves and exits; press Ctrl-C again to exit without waiting")
        for worker in self.active:
            self.engine.cancel(worker.handle, hard=False)


def worker_options(settings: EngineConfig, failures: int = 0, devices: int = 0) -> WorkerOptions:
    """Return a worker's options after `failures` attempts, on `devices` devices (0: all that it has)."""
    return WorkerOptions(
        attempts=max(1, settings.attempts - failures),
        backoff_seconds=settings.backoff_seconds,
        stall_seconds=settings.stall_seconds,
        opaque_seconds=settings.opaque_seconds,
        on_failure=settings.on_failure.value,
        devices=devices,
    )
