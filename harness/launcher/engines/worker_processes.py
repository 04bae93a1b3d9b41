"""Processes of a worker, which start and end together, and the messages that say why they ended."""

from __future__ import annotations

import contextlib
import re
import signal
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

from harness.config.process_group import ProcessGroup, to_env
from harness.launcher.engines.engine_api import ALREADY_RUNNING, Exit, WorkerSpec
from harness.records.paths import RunDir
from harness.records.run.run_lock import owner

MAX_QUOTED_CHARACTERS = 300
"""Number of characters that are quoted from a log."""


_ERROR_LINE = re.compile(r"^[\w.]*(error|exception)\b|\b(error:|fatal|check failed|killed)", re.IGNORECASE)
"""Pattern of the error lines of Python, XLA, shells and Slurm. Hints and stack traces follow these lines."""
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
    """Handle for all processes of a run, ordered by index."""

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


def log_sizes(spec: WorkerSpec) -> dict[Path, int]:
    """Return the bytes in each process's log. Older output does not explain a later exit."""
    logs = [process_log(spec, index) for index in range(spec.processes)]
    return {log: log.stat().st_size for log in logs if log.exists()}


def exit_message(spec: WorkerSpec, end: Exit, log_sizes_before: Mapping[Path, int]) -> str:
    """Build the exit message: the reason, then the last relevant line of the scheduler's or worker's log.
    `log_sizes_before`: the result of `log_sizes` when the worker was started."""
    log = process_log(spec, end.process)
    output = log_lines(log, log_sizes_before.get(log, 0))
    reason = end.scheduler_message
    if not reason and end.code is not None:
        reason = last_error_line(output, any_line=end.code > 0)
    message = f"{end.message}: {reason[:MAX_QUOTED_CHARACTERS]}" if reason else end.message
    if end.code is None:
        return message
    return f"{message} (see {log})" if output else f"{message} (nothing in {log})"


def last_error_line(lines: list[str], *, any_line: bool = True) -> str:
    """Return the last line that names an error; without one, the last line if `any_line`, else ''."""
    matches = [line for line in lines if _ERROR_LINE.search(line)] or (lines if any_line else [])
    return matches[-1] if matches else ""


def log_lines(log: Path, start: int = 0) -> list[str]:
    """Return the lines of a log from byte `start` on, stripped and without empty ones; none without a log."""
    if not log.exists():
        return []
    with log.open("rb") as file:
        file.seek(start)
        text = file.read().decode(errors="replace")
    return [line.strip() for line in text.splitlines() if line.strip()]


def exit_code_text(code: int) -> str:
    """Describe an exit status; a negative one is a signal."""
    if code >= 0:
        return f"the worker ended with status {code}"
    with contextlib.suppress(ValueError):
        return f"the worker was ended by {signal.Signals(-code).name}"
    return f"the worker was ended by signal {-code}"
