"""Slurm's commands: one `squeue` for all jobs, one `scancel` for many, and their messages."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config.schema.engine import SlurmConfig
from harness.core.errors import UserError, did_you_mean
from harness.launcher.engines.engine_api import Exit
from harness.launcher.engines.worker_processes import exit_code_text, log_lines

REFRESH_SECONDS = 1.0
"""Seconds for which one answer of `squeue` is used for all jobs."""
COMMAND_TIMEOUT_SECONDS = 60.0
"""Seconds that a command may take; a controller under load answers late."""
IDS_PER_COMMAND = 500
"""Maximum number of job ids on one command line."""
MAX_ARRAY_TASKS = 1000
"""Maximum number of workers in one array; the size of a script is limited too."""

_NAMES = ("JobArrayID", "State", "exit_code", "Reason", "Name", "JobID", "NodeList")
_COLUMNS = dict(zip(_NAMES, (20, 20, 12, 60, 200, 20, 200), strict=True))
"""Widths of the columns of `squeue`, in characters."""
_PENDING_STATES = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
_LIVE = ("RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING")
_STATE_MESSAGES = {
    "TIMEOUT": "Slurm ended it at its time limit (engine.slurm.time_limit)",
    "DEADLINE": "Slurm ended it at its deadline",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not boot",
    "PREEMPTED": "Slurm gave its node to another job",
    "CANCELLED": "its job was cancelled",
    "OUT_OF_MEMORY": "Slurm ended it because it used too much memory (--mem=... in engine.slurm.extra)",
}
LOG_NOT_OPENED_SIGNAL = 53
"""Signal number by which Slurm reports that it could not open a job's output file."""
_LOG_NOT_OPENED = "Slurm could not write its log there"
_IMPOSSIBLE_REASONS = ("PartitionConfig", "PartitionTimeLimit", "BadConstraints")
"""Reasons of pending jobs whose requests exceed their partition, even if every node is idle."""
_ERROR_KEYS = {"--time": "time_limit", "node name": "nodelist", "feature": "constraint", "account": "account"}
"""Key of engine.slurm by the text in Slurm's error message."""
PREEMPTED_STATES = ("NODE_FAIL", "BOOT_FAIL", "PREEMPTED")
"""States in which Slurm took the node away: no attempt is counted."""

Call = Callable[[Sequence[str]], str]


class CommandFailed(Exception):
    """A failed Slurm command, with its error message."""


@dataclass(frozen=True)
class SlurmJob:
    """A job or a job step, as `squeue` shows it."""

    id: str
    state: str
    wait_status: int
    """Exit status in the encoding of `os.wait`."""
    reason: str
    """Reason for which it is pending."""
    name: str
    raw_id: str = ""
    """Job id in Slurm's own messages; each task of an array has its own."""
    nodes: str = ""

    @property
    def array_task(self) -> int | None:
        """Index in its job array; None for a job outside arrays, which is not ours."""
        _, _, index = self.id.partition("_")
        return int(index) if index.isdigit() else None

    @property
    def is_pending(self) -> bool:
        """True while it waits in the queue."""
        return self.state in _PENDING_STATES

    @property
    def is_held(self) -> bool:
        """True if it waits until somebody releases it by hand."""
        return self.is_pending and self.reason.replace("_", " ") == "launch failed requeued held"

    @property
    def never_starts(self) -> bool:
        """True if it would wait forever."""
        return self.is_held or (self.is_pending and self.reason in _IMPOSSIBLE_REASONS)

    @property
    def exit(self) -> Exit | None:
        """Exit of the job; None while it waits or runs."""
        if self.is_held:
            return Exit(None, f"Slurm could not launch job {self.id} and holds it ({self.reason})")
        if self.never_starts:
            return Exit(
                None,
                f"job {self.id} would wait forever ({self.reason}): its partition lacks what it asks for. "
                "Change mesh or engine.slurm (partition, cpus, gpus, time_limit, extra)",
            )
        if self.is_pending or self.state in _LIVE:
            return None
        if self.state in _STATE_MESSAGES:
            return Exit(None, f"{_STATE_MESSAGES[self.state]}: job {self.id}", self.state in PREEMPTED_STATES)
        code = os.waitstatus_to_exitcode(self.wait_status)
        where = f" on {self.nodes}" if self.nodes else ""
        message = _LOG_NOT_OPENED if code == -LOG_NOT_OPENED_SIGNAL else exit_code_text(code)
        return Exit(code, f"{message} (job {self.id}{where}, {self.state})")


class Queue:
    """The jobs of this user, or the steps of an allocation, at most REFRESH_SECONDS old."""

    def __init__(self, call: Call, ask: Callable[[Call], dict[str, SlurmJob]]) -> None:
        self._call, self._fetch = call, ask
        self._jobs: dict[str, SlurmJob] = {}
        self._asked_at = self.answered_at = float("-inf")
        """Monotonic times of the last question and of the last question that was answered."""

    def jobs(self) -> Mapping[str, SlurmJob]:
        """Return all jobs by id, or steps by name; the last answer if Slurm does not answer now."""
        now = time.monotonic()
        if now - self._asked_at >= REFRESH_SECONDS:
            self._asked_at = now
            with contextlib.suppress(CommandFailed):
                self._jobs, self.answered_at = self._fetch(self._call), now
        return self._jobs

    def check_answers(self) -> None:
        """Raise UserError if Slurm has never answered."""
        self.jobs()
        if self.answered_at == float("-inf"):
            raise UserError("engine=slurm: the controller does not answer squeue. Try again later")


def list_user_jobs(call: Call) -> dict[str, SlurmJob]:
    """Return the user's jobs by id, one per array task, including those that ended in the last minutes."""
    columns = ",".join(f"{name}:{width}" for name, width in _COLUMNS.items())
    answer = call(["squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}", "-O", columns])
    jobs = [_parse_job(line) for line in answer.splitlines() if line.strip()]
    return {job.id: job for job in jobs}


def list_steps(allocation: str, call: Call) -> dict[str, SlurmJob]:
    """Return the running steps of an allocation by name."""
    answer = call(["squeue", "--noheader", "--steps", f"--jobs={allocation}", "--format=%i %j"])
    rows = [line.split() for line in answer.splitlines() if len(line.split()) == 2]
    return {name: SlurmJob(id, "RUNNING", 0, "", name) for id, name in rows}


def last_slurm_message(raw_id: str, log: Path, *, single_job: bool) -> str:
    """Return Slurm's last message about a job. The jobs of an array share the log, unless `single_job`."""
    pattern = re.compile(rf"\b(job|step|jobid|stepid)[ =]{raw_id}\b", re.IGNORECASE)
    matches = [line for line in log_lines(log) if single_job or pattern.search(line)]
    return matches[-1] if matches else ""


def cancel_jobs(jobs: Sequence[str], *, hard: bool, call: Call) -> None:
    """Ask workers to save and exit, or kill them if `hard`. Pending jobs are removed from the queue."""
    gentle = [["scancel", "--state=PENDING"], ["scancel", "--signal=USR2", "--batch"]]
    for scancel in [["scancel"]] if hard else gentle:
        for first in range(0, len(jobs), IDS_PER_COMMAND):
            try:
                call([*scancel, *jobs[first : first + IDS_PER_COMMAND]])
            except CommandFailed:
                continue  # one of them ended by itself


def max_array_size(call: Call) -> int:
    """Return how many tasks one array may have."""
    try:
        lines = call(["scontrol", "show", "config"]).splitlines()
    except CommandFailed:
        return MAX_ARRAY_TASKS
    limits = [line.partition("=")[2].strip() for line in lines if line.startswith("MaxArraySize")]
    return max(1, min([MAX_ARRAY_TASKS, *map(int, limits)]))


def run_command(arguments: Sequence[str]) -> str:
    """Return what a Slurm command prints. Raises CommandFailed with its error message."""
    try:
        pipes: dict[str, Any] = {"capture_output": True, "stdin": subprocess.DEVNULL, "text": True}
        process = subprocess.run(arguments, check=False, timeout=COMMAND_TIMEOUT_SECONDS, **pipes)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandFailed(str(error)) from error
    if process.returncode:
        lines = [line for line in process.stderr.splitlines() if line.strip()]
        reasons = [line.partition("error: ")[2] or line for line in lines]
        raise CommandFailed("; ".join(reasons) or "no reason given")
    return process.stdout


def check_installed(program: str) -> None:
    """Raise UserError if a Slurm command is not on the PATH."""
    if shutil.which(program) is None:
        raise UserError(
            f"engine=slurm: {program} is not found on this machine. Run the command on a login node of the "
            "cluster, or train here with engine=local"
        )


def refusal_message(error: str, config: SlurmConfig, call: Call) -> str:
    """Explain why `sbatch` refused a job, with the config key to change."""
    if "invalid partition" in error.lower():
        partitions: list[str] = []
        with contextlib.suppress(CommandFailed):
            partitions = call(["sinfo", "--noheader", "--format=%R"]).split()
        hint = did_you_mean(config.partition or "", partitions)
        return f"engine.slurm.partition={config.partition}: no such partition; {hint}"
    if "invalid job array" in error.lower():
        return (
            "engine=slurm: this cluster accepts no job arrays (MaxArraySize=0). Have that changed, or start "
            "workers inside an allocation with engine.slurm.submit=steps"
        )
    if "submit limit" in error.lower():
        return f"engine=slurm: Slurm accepts no more of your jobs ({error}). Lower engine.workers"
    keys = (key for text, key in _ERROR_KEYS.items() if text in error)
    setting = next((f"engine.slurm.{key}={getattr(config, key)}" for key in keys), "engine=slurm")
    return f"{setting}: Slurm refuses the job ({error}). Change engine.slurm, or ask its administrators"


def _parse_job(line: str) -> SlurmJob:
    fields, start = [], 0
    for width in _COLUMNS.values():
        fields.append(line[start : start + width].strip())
        start += width
    id, state, status, reason, name, raw_id, nodes = fields
    return SlurmJob(id, state, int(status or 0), reason, name, raw_id, nodes)
