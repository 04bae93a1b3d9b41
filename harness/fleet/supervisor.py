"""Keeps workers at work until every run has an end: starts, watches, restarts, gives up."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.config.schema import EngineConfig
from harness.fleet.directories import Ready, mark
from harness.fleet.engines import HELD, Engine, Exit, Order
from harness.fleet.progress import Display
from harness.fleet.runs import Run
from harness.fleet.watchdog import AT_WORK, Watchdog
from harness.records.claim import worker_of
from harness.records.layout import RunDir
from harness.records.status import State, Status, read_status

TICK = 0.25
LONGEST_BACKOFF = 60.0


class Interrupted(Exception):
    """The user asked to leave; every worker saved, or was told to."""


@dataclass
class Assignment:
    """Runs that share a worker."""

    name: str
    runs: list[Run]
    devices: int
    """Of the whole block, so that a run restarted alone finds the process that it had."""
    not_before: float = 0.0


@dataclass
class Active:
    assignment: Assignment
    handle: Any
    watchdog: Watchdog
    killed: str = ""
    """Why we ended it ourselves."""


@dataclass
class Attempts:
    """Failures of a run in a row in which it got no further than before."""

    count: int = 0
    furthest: int = -1

    def failed_at(self, step: int) -> int:
        self.count = 1 if step > self.furthest >= 0 else self.count + 1
        self.furthest = max(self.furthest, step)
        return self.count


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
    _attempts: dict[str, Attempts] = field(default_factory=dict)
    _dropped: set[str] = field(default_factory=set)
    """Runs that are told to leave because another one failed."""
    _stopping: bool = False

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
        self._activate(assignment, self.engine.adopt(writer))

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
        used = sum(worker.assignment.devices for worker in self.active)
        return not (self.devices and used) or used + assignment.devices <= self.devices

    def _start(self, assignment: Assignment) -> None:
        ready = {run.name: self.prepare(run) for run in assignment.runs}
        taken = [run for run in assignment.runs if ready[run.name] is Ready.alive]
        assignment.runs = [run for run in assignment.runs if ready[run.name] is Ready.train]
        if taken:
            self._follow(taken, assignment)
        if assignment.runs:
            self._activate(assignment, self.engine.submit(self.order(assignment)))

    def _follow(self, runs: list[Run], origin: Assignment) -> None:
        """Runs that a live worker holds are watched, grouped by that worker."""
        for writer, held in by_worker(runs).items():
            if writer is None or not writer.pid:
                self._requeue(Assignment(origin.name, held, origin.devices), 1.0)
            else:
                self.adopt(Assignment(origin.name, held, origin.devices), writer)

    def _activate(self, assignment: Assignment, handle: Any) -> None:
        self.active.append(Active(assignment, handle, Watchdog(self.clock())))

    # Watching

    def _look(self) -> None:
        for worker in [*self.active]:
            statuses = [(run.dir, read_status(run.dir)) for run in worker.assignment.runs]
            end = self.engine.poll(worker.handle)
            if end is not None:
                self.active.remove(worker)
                self._ended(worker, end)
            else:
                worker.watchdog.look(statuses, self.clock())
                self._check_silence(worker)
        self.display.show([run for worker in self.active for run in worker.assignment.runs])

    def _check_silence(self, worker: Active) -> None:
        silent = worker.watchdog.silent()
        if silent > self.settings.stall_seconds and not worker.killed:
            worker.killed = f"no progress for {silent:.0f} s"
            self.display.note(f"{worker.assignment.name}: {worker.killed}; its worker is ended")
            self.engine.cancel(worker.handle, hard=True)

    # Ending

    def _ended(self, worker: Active, end: Exit) -> None:
        again: list[Run] = []
        if end.code == HELD:
            self._requeue(worker.assignment, 1.0)
            return
        for run in worker.assignment.runs:
            status = self._final_status(run, worker, end)
            if status.state.settled:
                self.display.finished(run, status)
            elif status.state is State.waiting:
                continue
            elif self._stopping or run.name in self._dropped:
                mark(run.dir, State.preempted, "told to leave; the same command continues")
            elif self._worth_another(run, status):
                again.append(run)
        if again:
            self._retry(worker.assignment, again)

    def _final_status(self, run: Run, worker: Active, end: Exit) -> Status:
        """What the run says; where it was cut off in mid-sentence, that it was lost."""
        status = read_status(run.dir)
        if status.state in AT_WORK:
            words = worker.killed or end.words + _last_words(self.order(worker.assignment).log, end)
            mark(run.dir, State.lost, words)
        return read_status(run.dir)

    def _worth_another(self, run: Run, status: Status) -> bool:
        if status.state is State.preempted:
            return True
        attempts = self._attempts.setdefault(run.name, Attempts())
        if attempts.failed_at(status.step) < self.settings.attempts:
            self.display.note(f"{run.name}: {status.message or status.state.value}; it is started again")
            return True
        self._give_up(run, status)
        return False

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
        at_work = [worker.assignment for worker in self.active]
        for assignment in [*self.waiting, *at_work]:
            dropped = [run.name for run in assignment.runs if concerned(run)]
            self._dropped |= {*dropped}
            self.failed |= dict.fromkeys(dropped, "stopped because another run failed")
        self.waiting = [each for each in self.waiting if not any(concerned(run) for run in each.runs)]
        for worker in self.active:
            if any(concerned(run) for run in worker.assignment.runs):
                self.engine.cancel(worker.handle, hard=False)

    def _retry(self, origin: Assignment, runs: list[Run]) -> None:
        tries = max((self._attempts[run.name].count for run in runs if run.name in self._attempts), default=0)
        wait = min(self.settings.backoff_seconds * 2 ** (tries - 1), LONGEST_BACKOFF) if tries else 0.0
        self._requeue(Assignment(origin.name, runs, origin.devices), wait)

    def _requeue(self, assignment: Assignment, wait: float) -> None:
        """First in the queue: what was begun is ended before something new is begun."""
        assignment.not_before = self.clock() + wait
        self.waiting.insert(0, assignment)

    # Leaving

    def _leave(self) -> None:
        """Ask every worker to save; the loop waits for them, unless it is told a second time."""
        self._stopping, self.waiting = True, []
        self.display.note("every run saves and leaves; press Ctrl-C again to leave without waiting")
        for worker in self.active:
            self.engine.cancel(worker.handle, hard=False)


def by_worker(runs: Sequence[Run]) -> dict[Any, list[Run]]:
    """Runs by the process that trains them."""
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        groups.setdefault(worker_of(RunDir(run.dir.path)), []).append(run)
    return groups


def _last_words(log: Path, end: Exit) -> str:
    """The last line of a worker's log, where it ended by itself and may have said why."""
    if end.code is None or end.code < 0 or not log.exists():
        return ""
    lines = log.read_text(errors="replace").strip().splitlines()
    return f": {lines[-1]}" if lines else ""
