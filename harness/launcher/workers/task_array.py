"""Equal tasks that share one work among themselves, started by an engine and watched until it is done.

A task ends with status 0 only when the whole work is done, whoever did it. So the first that does ends the
array, and a task that is lost is started again: it finds what is left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.core.errors import UserError
from harness.launcher.engines.engine_api import Engine, Exit, WorkerSpec
from harness.launcher.engines.worker_processes import exit_message, log_lines, log_sizes
from harness.launcher.sweep_lock import Interrupted, handle_signals

USERS_MISTAKE = 2
"""Status of a task whose last words are a sentence for the user: no other task can do better."""
LEFT_EARLY = 130
"""Status of a task that was asked to leave, as before its time limit."""
TICK_SECONDS = 0.25
LEAVE_SECONDS = 30.0
"""Seconds in which tasks that are asked to leave do so; then they are killed."""


class TasksFailed(Exception):
    """Every task was given up; says why."""


@dataclass
class StartedTask:
    """A task that was started and has not ended."""

    spec: WorkerSpec
    handle: Any
    log_sizes_before: Mapping[Path, int]
    progress_before: float
    """Amount of the work that was done when it was started."""


@dataclass
class TaskArray:
    """The tasks of an engine that has passed its check."""

    engine: Engine
    progress: Callable[[], float]
    """Amount of the work that is done, in any unit. It is called a few times a second."""
    note: Callable[[str], None]
    attempts: int = 3
    """Number of failures in a row, of one task and without progress of any, after which it is given up."""
    backoff_seconds: float = 1.0
    """Seconds before a task that failed is started again; doubled by each further failure."""
    clock: Callable[[], float] = time.monotonic
    _active: list[StartedTask] = field(default_factory=list)
    _waiting: list[tuple[float, WorkerSpec]] = field(default_factory=list)
    """Tasks to start again, each with its earliest time."""
    _failures: dict[str, int] = field(default_factory=dict)
    _reasons: set[str] = field(default_factory=set)
    """Reasons of waiting tasks that were printed."""
    _failure: str = ""
    """Message of the last task that was given up."""
    _is_interrupted: bool = False

    def submit(self, specs: Sequence[WorkerSpec]) -> None:
        """Start the tasks and leave them alone. Raises UserError if one is refused."""
        handles = [self.engine.submit(spec) for spec in specs]
        ends = [self.engine.poll(handle) for handle in handles]
        self.engine.close()
        for end in ends:
            if end is not None and end.code != 0:
                raise UserError(end.message)

    def run(self, specs: Sequence[WorkerSpec]) -> None:
        """Return when the work is done. Raises UserError for a mistake of the user, TasksFailed if every task
        keeps failing, and Interrupted on Ctrl-C, after every task has left."""

        def interrupt(*_) -> None:
            self._is_interrupted = True

        with handle_signals(interrupt):
            try:
                self._waiting = [(self.clock(), spec) for spec in specs]
                while not self._poll_all():
                    if self._is_interrupted:
                        raise Interrupted
                    if not self._active and not self._waiting:
                        raise TasksFailed(self._failure)
                    self._start_waiting()
                    time.sleep(TICK_SECONDS)
            finally:
                self._leave()
                self.engine.close()

    def _start_waiting(self) -> None:
        now = self.clock()
        for entry in [entry for entry in self._waiting if entry[0] <= now]:
            self._waiting.remove(entry)
            spec, sizes = entry[1], log_sizes(entry[1])
            self._active.append(StartedTask(spec, self.engine.submit(spec), sizes, self.progress()))

    def _poll_all(self) -> bool:
        """Handle the tasks that have ended. Return whether one of them found that the work is done."""
        self.progress()
        for task in [*self._active]:
            if (end := self.engine.poll(task.handle)) is None:
                self._note_waiting(task)
                continue
            self._active.remove(task)
            if end.code == 0:
                return True
            self._handle_failure(task, end)
        return False

    def _note_waiting(self, task: StartedTask) -> None:
        reason = self.engine.waiting(task.handle)
        if reason and reason not in self._reasons:
            self._reasons.add(reason)
            self.note(f"{task.spec.name} {reason}")

    def _handle_failure(self, task: StartedTask, end: Exit) -> None:
        """Start the task again, unless it keeps failing. Raises UserError for a mistake of the user."""
        message = exit_message(task.spec, end, task.log_sizes_before)
        if end.code == USERS_MISTAKE:
            words = log_lines(task.spec.log, task.log_sizes_before.get(task.spec.log, 0))
            raise UserError(words[-1] if words else message)
        name, is_progress = task.spec.name, self.progress() > task.progress_before
        if end.preempted or (end.code == LEFT_EARLY and is_progress):
            self._waiting.append((self.clock(), task.spec))
            return
        self._failures[name] = 1 if is_progress else self._failures.get(name, 0) + 1
        if self._failures[name] >= self.attempts:
            self._failure = f"{name}: {message}"
            self.note(f"{self._failure}; it is given up")
        else:
            self.note(f"{name}: {message}; it is started again")
            wait = self.backoff_seconds * 2 ** (self._failures[name] - 1)
            self._waiting.append((self.clock() + wait, task.spec))

    def _leave(self) -> None:
        """Ask every task to leave, and kill those that do not."""
        for hard, seconds in ((False, LEAVE_SECONDS), (True, LEAVE_SECONDS)):
            for task in self._active:
                self.engine.cancel(task.handle, hard=hard)
            deadline = self.clock() + seconds
            while self._active and self.clock() < deadline:
                self._active = [task for task in self._active if self.engine.poll(task.handle) is None]
                time.sleep(TICK_SECONDS * bool(self._active))
