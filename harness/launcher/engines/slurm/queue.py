"""What Slurm's own commands say and do: one `squeue` for all jobs, one `scancel` for many."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.config.schema.engine import SlurmConfig
from harness.core.errors import UserError, nearest
from harness.launcher.engines.engine_api import Exit
from harness.launcher.engines.exit_messages import in_words

FRESH = 1.0
"""Seconds for which an answer of `squeue` serves every job."""
PATIENCE = 60.0
"""Seconds that a command may take: a controller under load answers late."""
AT_ONCE = 500
"""Job ids on one command line."""
PIECE = 1000
"""Workers in one array at most: a script has its limits too."""

_COLUMNS = {
    "JobArrayID": 20,
    "State": 20,
    "exit_code": 12,
    "Reason": 60,
    "Name": 200,
    "JobID": 20,
    "NodeList": 200,
}
_WAITS = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
_LIVES = (
    "RUNNING",
    "CONFIGURING",
    "COMPLETING",
    "SUSPENDED",
    "STOPPED",
    "SIGNALING",
    "STAGE_OUT",
    "RESIZING",
)
_WORDS = {
    "TIMEOUT": "Slurm ended it at its time limit (engine.slurm.time_limit)",
    "DEADLINE": "Slurm ended it at its deadline",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not boot",
    "PREEMPTED": "Slurm gave its node to another job",
    "CANCELLED": "its job was cancelled",
    "OUT_OF_MEMORY": "Slurm ended it for the memory that it took (--mem=... in engine.slurm.extra)",
}
NO_FILE = 53
"""As which signal Slurm tells that it could not open the file into which a job speaks."""
_UNSEEN = "Slurm could not write its log there"
_NEVER = ("PartitionConfig", "PartitionTimeLimit", "BadConstraints")
"""Why a job waits that asks for what its partition has not, even with every node up and idle."""
_MEANT = {"--time": "time_limit", "node name": "nodelist", "feature": "constraint", "account": "account"}
"""Keys, by what a refusal says of them."""
TAKEN_AWAY = ("NODE_FAIL", "BOOT_FAIL", "PREEMPTED")
"""Ends that are no failure of a run: no attempt is counted."""

Call = Callable[[Sequence[str]], str]


class Refused(Exception):
    """A command of Slurm's that failed, with its last words."""


@dataclass(frozen=True)
class Job:
    """A job, or a step of one, as Slurm shows it."""

    id: str
    state: str
    status: int
    """As `wait` gives it."""
    reason: str
    """Why it waits."""
    name: str
    number: str = ""
    """By which Slurm's own messages call it: each task of an array has one of its own."""
    nodes: str = ""

    @property
    def task(self) -> int | None:
        """Of an array; None for a job that is none of ours."""
        _, _, index = self.id.partition("_")
        return int(index) if index.isdigit() else None

    @property
    def waits(self) -> bool:
        return self.state in _WAITS

    @property
    def held(self) -> bool:
        """Whether it would wait until somebody releases it by hand."""
        return self.waits and self.reason.replace("_", " ") == "launch failed requeued held"

    @property
    def stuck(self) -> bool:
        """Whether it would wait for ever."""
        return self.held or (self.waits and self.reason in _NEVER)

    @property
    def exit(self) -> Exit | None:
        """None while it waits or runs."""
        if self.held:
            return Exit(None, f"Slurm could not launch it, and holds it back: job {self.id} ({self.reason})")
        if self.stuck:
            return Exit(
                None,
                f"job {self.id} would wait for ever ({self.reason}): its partition has not what it asks for; "
                "change mesh or engine.slurm (partition, cpus, gpus, time_limit, extra)",
            )
        if self.waits or self.state in _LIVES:
            return None
        if self.state in _WORDS:
            return Exit(None, f"{_WORDS[self.state]}: job {self.id}", self.state in TAKEN_AWAY)
        code = os.waitstatus_to_exitcode(self.status)
        where = f" on {self.nodes}" if self.nodes else ""
        words = _UNSEEN if code == -NO_FILE else in_words(code)
        return Exit(code, f"{words} (job {self.id}{where}, {self.state})")


class Queue:
    """All jobs of this user, or steps of an allocation, as they were a moment ago."""

    def __init__(self, call: Call, ask: Callable[[Call], dict[str, Job]]) -> None:
        self._call, self._ask_for = call, ask
        self._jobs: dict[str, Job] = {}
        self._asked = self.answered = float("-inf")
        """When the answer that is held was asked for; before that, nothing is known."""

    def jobs(self) -> Mapping[str, Job]:
        """The answer before where nobody answers now."""
        now = time.monotonic()
        if now - self._asked >= FRESH:
            self._asked = now
            try:
                self._jobs = self._ask_for(self._call)
                self.answered = now
            except Refused:
                pass
        return self._jobs

    def check_answers(self) -> None:
        """Raises UserError where nothing was ever answered."""
        self.jobs()
        if self.answered == float("-inf"):
            raise UserError(
                "engine=slurm: the controller does not answer squeue; give the command again later"
            )

    def now(self) -> float:
        return time.monotonic()


def jobs_of_user(call: Call) -> dict[str, Job]:
    """By id, each task of an array for itself, with those that ended in the last minutes."""
    shown = ",".join(f"{name}:{width}" for name, width in _COLUMNS.items())
    answer = call(["squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}", "-O", shown])
    jobs = [_job(line) for line in answer.splitlines() if line.strip()]
    return {job.id: job for job in jobs}


def steps_of(allocation: str, call: Call) -> dict[str, Job]:
    """By name; those that run."""
    answer = call(["squeue", "--noheader", "--steps", f"--jobs={allocation}", "--format=%i %j"])
    found = [line.split() for line in answer.splitlines() if len(line.split()) == 2]
    return {name: Job(id, "RUNNING", 0, "", name) for id, name in found}


def said_of(number: str, log: Path, *, alone: bool) -> str:
    """The last that Slurm said of a job, in a log that it shares with others unless it is `alone`."""
    if not log.exists():
        return ""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    ours = re.compile(rf"\b(job|step|jobid|stepid)[ =]{number}\b", re.IGNORECASE)
    found = [line for line in lines if alone or ours.search(line)]
    return found[-1] if found else ""


def cancel(jobs: Sequence[str], *, hard: bool, call: Call) -> None:
    """Ask workers to save and leave, or end them; what only waits has nothing to save."""
    orders = (
        [["scancel"]] if hard else [["scancel", "--state=PENDING"], ["scancel", "--signal=USR2", "--batch"]]
    )
    for order in orders:
        for first in range(0, len(jobs), AT_ONCE):
            try:
                call([*order, *jobs[first : first + AT_ONCE]])
            except Refused:
                continue  # one of them ended by itself


def largest_array(call: Call) -> int:
    """How many tasks an array may have."""
    try:
        lines = call(["scontrol", "show", "config"]).splitlines()
    except Refused:
        return PIECE
    said = [line.partition("=")[2].strip() for line in lines if line.startswith("MaxArraySize")]
    return max(1, min([PIECE, *map(int, said)]))


def command(arguments: Sequence[str]) -> str:
    """What a command of Slurm's prints. Raises Refused with its last words."""
    try:
        done = subprocess.run(
            arguments, capture_output=True, text=True, check=False, timeout=PATIENCE, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Refused(str(error)) from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise Refused("; ".join(line.partition("error: ")[2] or line for line in lines) or "no reason given")
    return done.stdout


def check_installed(program: str) -> None:
    """Raises UserError where Slurm's commands are not on the path."""
    if shutil.which(program) is None:
        raise UserError(
            f"engine=slurm: {program} is not found on this machine; give the command on a login node of the "
            "cluster, or train here with engine=local"
        )


def refusal(said: str, config: SlurmConfig, call: Call) -> str:
    """One sentence for what `sbatch` would not take."""
    if "invalid partition" in said.lower():
        try:
            known = call(["sinfo", "--noheader", "--format=%R"]).split()
        except Refused:
            known = []
        return (
            f"engine.slurm.partition={config.partition}: no such partition; "
            f"{nearest(config.partition or '', known)}"
        )
    if "invalid job array" in said.lower():
        return (
            "engine=slurm: this cluster takes no arrays of jobs (MaxArraySize=0); have it changed, or start "
            "workers inside an allocation with engine.slurm.submit=steps"
        )
    if "submit limit" in said.lower():
        return (
            f"engine=slurm: Slurm takes no more jobs of yours ({said}); hand in fewer with engine.workers=N"
        )
    meant = (f"engine.slurm.{key}={getattr(config, key)}" for word, key in _MEANT.items() if word in said)
    key = next(meant, "engine=slurm")
    return f"{key}: Slurm refuses the job ({said}); change engine.slurm, or ask who runs the cluster"


def _job(line: str) -> Job:
    fields, start = [], 0
    for width in _COLUMNS.values():
        fields.append(line[start : start + width].strip())
        start += width
    id, state, status, reason, name, number, nodes = fields
    return Job(id, state, int(status or 0), reason, name, number, nodes)
