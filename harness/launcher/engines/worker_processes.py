"""Process groups: the processes that train one run start and end together."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

from harness.config.process_group import ProcessGroup, to_env
from harness.launcher.engines.engine_api import ALREADY_RUNNING, Exit, WorkerSpec
from harness.records.paths import RunDir
from harness.records.run.run_lock import owner

Handle = TypeVar("Handle")
EXIT_GRACE_SECONDS = 30.0
"""Seconds that the other processes have to exit by themselves after the first has exited."""


def per_process_specs(spec: WorkerSpec, host: str) -> list[WorkerSpec]:
    """Return one spec per process, each with its own environment and log.
    `host`: the name by which the other processes reach process 0, which uses the log of `spec`."""
    count = spec.processes
    if count == 1:
        return [spec]
    launch_id = uuid.uuid4().hex
    envs = [to_env(ProcessGroup(count, launch_id, host, index=index)) for index in range(count)]
    logs = [process_log(spec, index) for index in range(count)]
    return [replace(spec, env={**spec.env, **env}, log=log) for env, log in zip(envs, logs, strict=True)]


def process_log(spec: WorkerSpec, index: int) -> Path:
    """Return the log of one process of a worker."""
    return spec.log.with_suffix(f".{index}.log") if index else spec.log


@dataclass
class ProcessGroupHandle(Generic[Handle]):
    """One handle for all processes of a run, ordered by index."""

    members: Sequence[Handle]
    clock: Callable[[], float] = time.monotonic
    exits: dict[int, Exit] = field(default_factory=dict)
    """Exits by process index, in the order in which they were seen."""
    first_exit_time: float = 0.0
    """Clock time of the first exit, in seconds."""
    is_killed: bool = False
    """True once the processes that outlived the grace period were killed."""

    def poll(self, poll_one: Callable[[Handle], Exit | None], kill: Callable[[Handle], None]) -> Exit | None:
        """Return the exit that explains the others once all have exited. Kills those that take too long."""
        for index, member in enumerate(self.members):
            if index not in self.exits and (exit := poll_one(member)) is not None:
                self.first_exit_time = self.first_exit_time if self.exits else self.clock()
                self.exits[index] = exit
        running = [member for index, member in enumerate(self.members) if index not in self.exits]
        if self.exits and not self.is_killed and self.clock() - self.first_exit_time > EXIT_GRACE_SECONDS:
            self.is_killed = True
            for member in running:
                kill(member)
        return None if running else self._group_exit()

    def _group_exit(self) -> Exit:
        if len(self.members) == 1 or self.exits[0].code in (0, ALREADY_RUNNING):  # process 0 knows the state
            return self.exits[0]
        index = min(self.exits, key=lambda position: _exit_priority(self.exits[position]))
        first = self.exits[index]
        message = f"process {index} of {len(self.members)}: {first.message}"
        return replace(first, message=message, process=index)


def _exit_priority(end: Exit) -> int:
    """Return the smallest number for the exit that caused the others: survivors exit by themselves."""
    if end.preempted:
        return 0
    return 1 if end.code is None or end.code < 0 else 2


def exit_of_group(spec: WorkerSpec, end: Exit) -> Exit:
    """Return the exit of a group seen as one process: ALREADY_RUNNING if another worker has the run."""
    if spec.processes == 1 or not end.code or not any(owner(RunDir(run).worker_lock) for run in spec.runs):
        return end
    return Exit(ALREADY_RUNNING, end.message)
