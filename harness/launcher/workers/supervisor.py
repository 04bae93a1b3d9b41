"""Keeps workers at work until every run has an end: starts, watches, restarts, gives up.

A run that fails in its lane is restarted there by its worker, which gives it up after so many attempts; here
is restarted what was lost with its process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.config.schema.engine import EngineConfig
from harness.config.worker_options import Terms
from harness.launcher.engines.engine_api import HELD, Engine, Exit, Order
from harness.launcher.engines.exit_messages import explained, spoken
from harness.launcher.run_directories import Ready, mark
from harness.launcher.runs import Run
from harness.launcher.sweep_lock import Interrupted
from harness.launcher.workers.progress import Display
from harness.launcher.workers.retries import UNHURT, Tries, no_time, steps_of
from harness.launcher.workers.watchdog import AT_WORK, Watchdog
from harness.records.paths import RunDir
from harness.records.run.run_lock import worker_of
from harness.records.run.status import State, Status, read_status

TICK = 0.25


@dataclass(eq=False)
class Assignment:
    """Runs that share a worker."""

    name: str
    runs: list[Run]
    devices: int
    """Of the whole block, so that a run restarted alone finds the process that it had."""
    not_before: float = 0.0
    failures: int = 0
    """In a row, that count against the attempts of every run in it."""


@dataclass(eq=False)
class Active:
    assignment: Assignment
    order: Order
    handle: Any
    watchdog: Watchdog
    runs: tuple[Run, ...]
    """All that it took on."""
    began: int
    """At which step, added up over its runs."""
    spoken: Mapping[Path, int]
    """Bytes in its logs before it was started."""
    killed: str = ""
    """Why we ended it ourselves."""
    told: set[str] = field(default_factory=set)
    """What was said of its runs."""


@dataclass
class Supervisor:
    """`prepare` is asked before each start of a run; `order` turns an assignment into a worker to start."""

    engine: Engine
    settings: EngineConfig
    display: Display
    workers: int
    prepare: Callable[[Run], Ready]
    order: Callable[[Assignment], Order]
    devices: int = 0
    """That workers share; 0: each has its own."""
    clock: Callable[[], float] = time.monotonic
    active: list[Active] = field(default_factory=list)
    waiting: list[Assignment] = field(default_factory=list)
    interruptions: int = 0
    """How often the user asked to leave; counted by a signal handler, read between two looks."""
    failed: dict[str, str] = field(default_factory=dict)
    """Runs that were given up, and why."""
    _dropped: list[Callable[[Run], bool]] = field(default_factory=list)
    """Which runs are told to leave because another one failed."""
    _reasons: set[str] = field(default_factory=set)
    """Why workers waited."""
    _stopping: bool = False
    _tries: Tries = field(init=False)

    def __post_init__(self) -> None:
        self._tries = Tries(self.settings)

    def run(self, assignments: Sequence[Assignment]) -> None:
        """Returns when every run has an end, waits at its look, or was given up.

        Raises Interrupted if it was told to leave.
        """
        self.waiting = [*assignments]
        while self.active or self.waiting:
            if self.interruptions and not self._stopping:
                self._leave()
            if self.interruptions > 1:
                self.display.note("the workers save and leave on their own")
                break
            self._start_what_fits()
            self._look()
            time.sleep(TICK)
        if self._stopping:
            raise Interrupted

    def adopt(self, assignment: Assignment, writer: Any) -> None:
        """Watch over a worker that another driver started."""
        self._activate(assignment, lambda order: self.engine.adopt(writer, order))

    # Starting

    def _start_what_fits(self) -> None:
        now = self.clock()
        for assignment in [each for each in self.waiting if each.not_before <= now]:
            if len(self.active) >= self.workers:
                return
            if not self._holds(assignment):
                continue
            self.waiting.remove(assignment)
            self._start(assignment)

    def _holds(self, assignment: Assignment) -> bool:
        """Whether enough devices are free; what a machine of another size began goes on alone."""
        if not self.devices:  # thousands may be at work
            return True
        used = sum(worker.assignment.devices for worker in self.active)
        return not used or used + assignment.devices <= self.devices

    def _start(self, assignment: Assignment) -> None:
        ready = {run.name: self.prepare(run) for run in assignment.runs}
        taken = [run for run in assignment.runs if ready[run.name] is Ready.alive]
        assignment.runs = [run for run in assignment.runs if ready[run.name] is Ready.train]
        if taken:
            self._follow(taken, assignment)
        for run in assignment.runs:
            mark(run.dir, State.pending, "")  # what an earlier attempt left is not what this one says
        if assignment.runs:
            self._activate(assignment, self.engine.submit)

    def _follow(self, runs: list[Run], origin: Assignment) -> None:
        """Runs that a live worker holds are watched, grouped by that worker."""
        for writer, held in by_worker(runs).items():
            if writer is None or not writer.pid:
                self._requeue(Assignment(origin.name, held, origin.devices), 1.0)
            else:
                self.adopt(Assignment(origin.name, held, origin.devices), writer)

    def _activate(self, assignment: Assignment, start: Callable[[Order], Any]) -> None:
        order, runs = self.order(assignment), (*assignment.runs,)
        before = spoken(order)
        handle, watchdog = start(order), Watchdog(self.clock())
        self.active.append(Active(assignment, order, handle, watchdog, runs, steps_of(runs), before))
        self._tries.begin(runs)

    # Watching

    def _look(self) -> None:
        at_work: list[Run] = []
        for worker in [*self.active]:
            end = self.engine.poll(worker.handle)
            if end is not None:
                self.active.remove(worker)
                self._ended(worker, end)
                continue
            if why := self.engine.waiting(worker.handle):
                self._say_why(worker, why)
                worker.watchdog = Watchdog(self.clock())  # what a scheduler took back begins anew
                continue
            statuses = [(run, read_status(run.dir)) for run in worker.assignment.runs]
            worker.watchdog.look([(run.dir, status) for run, status in statuses], self.clock())
            self._check_silence(worker)
            at_work += self._told(worker, statuses)
        self.display.show(at_work)

    def _told(self, worker: Active, statuses: Sequence[tuple[Run, Status]]) -> list[Run]:
        """Say what became of runs while others of their worker go on. Returns those that are at work."""
        for run, status in statuses:
            if status.state.settled:
                worker.assignment.runs.remove(run)
                self._settled(run, status)
            elif status.state is State.pending and status.message:  # its worker starts it again
                words = f"{run.name}: {status.message}"
                if words not in worker.told:
                    self.display.note(words)
                worker.told.add(words)
        return [run for run, status in statuses if status.state is State.running]

    def _say_why(self, worker: Active, why: str) -> None:
        """Each reason once, of whichever worker has it first: a queue holds thousands for the same one."""
        if why not in self._reasons:
            self.display.note(f"{worker.assignment.name} {why}")
            self._reasons.add(why)

    def _check_silence(self, worker: Active) -> None:
        silent = worker.watchdog.silent()
        if silent > self.settings.stall_seconds and not worker.killed:
            worker.killed = f"no progress for {silent:.0f} s"
            self.display.note(f"{worker.assignment.name}: {worker.killed}; its worker is ended")
            self.engine.cancel(worker.handle, hard=True)

    # Ending

    def _ended(self, worker: Active, end: Exit) -> None:
        if end.code == HELD:
            self._requeue(worker.assignment, 1.0)
            return
        if end.taken_away:
            self.display.note(f"{worker.assignment.name}: {end.words}")
        again: list[Run] = []
        begun = any(read_status(run.dir).state is State.running for run in worker.assignment.runs)
        for run in sorted(worker.assignment.runs, key=_given_up, reverse=True):
            status = self._final_status(run, worker, end, begun)
            if status.state.settled:
                self._settled(run, status)
            elif status.state is State.waiting:
                continue
            elif self._stopping or self._is_dropped(run):
                mark(run.dir, State.preempted, "told to leave; the same command continues")
            elif status.state is State.preempted and not end.taken_away and self._gets_nowhere(run, worker):
                mark(run.dir, State.failed, no_time(self.settings))
                self._give_up(run, read_status(run.dir))
            elif self._worth_another(run, status):
                again.append(run)
        self._retry(worker.assignment, again)

    def _settled(self, run: Run, status: Status) -> None:
        self.display.finished(run, status)
        if not status.state.ended:
            self.failed[run.name] = status.message or status.state.value

    def _final_status(self, run: Run, worker: Active, end: Exit, begun: bool) -> Status:
        """What the run says; where it was cut off in mid-sentence, that it was lost. What only waited for
        its turn beside others is not."""
        status = read_status(run.dir)
        cut_off = status.state in AT_WORK and not (begun and status.state is State.pending)
        if cut_off or (end.taken_away and status.state is State.lost):  # as the rest of its processes said
            words = worker.killed or explained(worker.order, end, worker.spoken)
            mark(run.dir, State.preempted if end.taken_away else State.lost, words)
        return read_status(run.dir)

    def _worth_another(self, run: Run, status: Status) -> bool:
        if not self._tries.worth_another(run, status):
            self._give_up(run, status)
            return False
        if status.state not in UNHURT:
            self.display.note(f"{run.name}: {status.message or status.state.value}; it is started again")
        return True

    def _gets_nowhere(self, run: Run, worker: Active) -> bool:
        return self._tries.gets_nowhere(run, idle=steps_of(worker.runs) <= worker.began)

    def _give_up(self, run: Run, status: Status) -> None:
        self.failed[run.name] = status.message or status.state.value
        self.display.finished(run, status)
        policy = self.settings.on_failure.value
        if policy == "stop_all":
            self._stop(lambda _: True)
        elif policy == "stop_block":
            self._stop(lambda other: other.block == run.block)

    def _stop(self, concerned: Callable[[Run], bool]) -> None:
        """Runs that wait are given up; workers at work save and leave, and are not started again."""
        self._dropped.append(concerned)
        for run in [run for each in self.waiting for run in each.runs]:
            self._is_dropped(run)
        self.waiting = [each for each in self.waiting if not any(concerned(run) for run in each.runs)]
        for worker in self.active:
            if any(concerned(run) for run in worker.assignment.runs):
                self.engine.cancel(worker.handle, hard=False)

    def _is_dropped(self, run: Run) -> bool:
        dropped = any(concerned(run) for concerned in self._dropped)
        if dropped:
            self.failed.setdefault(run.name, "stopped because another run failed")
        return dropped

    def _retry(self, origin: Assignment, runs: Sequence[Run]) -> None:
        """Together; but a run that has one attempt left makes it alone, after the others: whatever ends a
        whole process then shows itself, and takes no other run along."""
        counts = {run.name: self._tries.failures(run) for run in runs}
        last = self.settings.attempts - 1
        together = [run for run in runs if len(runs) == 1 or not 0 < last <= counts[run.name]]
        if together:
            self._again(origin, together, counts)
        for run in [run for run in runs if run not in together]:
            self._again(origin, [run], counts, at_the_end=True)

    def _again(
        self, origin: Assignment, runs: list[Run], counts: Mapping[str, int], at_the_end: bool = False
    ) -> None:
        failures = max(counts[run.name] for run in runs)
        wait = terms_of(self.settings).backoff(failures) if failures else 0.0
        name = runs[0].name if at_the_end else origin.name
        self._requeue(Assignment(name, runs, origin.devices, failures=failures), wait, at_the_end=at_the_end)

    def _requeue(self, assignment: Assignment, wait: float, *, at_the_end: bool = False) -> None:
        """First in the queue: what was begun is ended before something new is begun."""
        assignment.not_before = self.clock() + wait
        self.waiting.insert(len(self.waiting) if at_the_end else 0, assignment)

    # Leaving

    def _leave(self) -> None:
        """Ask every worker to save; the loop waits for them, unless it is told a second time."""
        self._stopping, self.waiting = True, []
        self.display.note("every run saves and leaves; press Ctrl-C again to leave without waiting")
        for worker in self.active:
            self.engine.cancel(worker.handle, hard=False)


def terms_of(settings: EngineConfig, failures: int = 0, devices: int = 0) -> Terms:
    """What a worker is told, with so many attempts used up already, on so many devices."""
    return Terms(
        attempts=max(1, settings.attempts - failures),
        backoff_seconds=settings.backoff_seconds,
        stall_seconds=settings.stall_seconds,
        on_failure=settings.on_failure.value,
        devices=devices,
    )


def _given_up(run: Run) -> bool:
    """By its worker, which restarts what is worth it. First of all: it may end others."""
    return read_status(run.dir).state in (State.failed, State.oom)


def by_worker(runs: Sequence[Run]) -> dict[Any, list[Run]]:
    """Runs by the process that trains them."""
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        groups.setdefault(worker_of(RunDir(run.dir.path)), []).append(run)
    return groups
