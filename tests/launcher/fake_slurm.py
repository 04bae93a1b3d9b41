"""A Slurm of one process: it answers as `sbatch`, `squeue`, `scancel` and `scontrol` do, and runs scripts by
bash. Every job is a task of an array.

What it holds can be made to wait, and to end in any state.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import shlex
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

from harness.config.schema.engine import SlurmConfig
from harness.launcher.engines.engine_api import WorkerSpec
from harness.launcher.engines.slurm.queue import CommandFailed
from harness.launcher.engines.slurm.slurm_engine import SlurmEngine, SubmittedJob
from harness.launcher.sweep import LaunchHooks
from harness.records.paths import SweepDir
from tests.launcher.support import facts


@dataclass
class Held:
    options: dict[str, str]
    script: Path
    number: str = ""
    """By which Slurm's own messages call it."""
    process: subprocess.Popen | None = None
    state: str = ""
    """Where it is not what the process says."""
    status: int = 0


@dataclass
class FakeSlurm:
    waits: bool = False
    """New jobs stay in the queue."""
    down: bool = False
    refuses: str = ""
    reason: str = "Priority"
    """Why jobs wait."""
    most: int = 1001
    """MaxArraySize."""
    calls: list[list[str]] = field(default_factory=list)
    jobs: dict[str, Held] = field(default_factory=dict)
    _ids: itertools.count = field(default_factory=lambda: itertools.count(1))

    def __call__(self, arguments: Sequence[str]) -> str:
        self.calls.append([*arguments])
        if self.down:
            raise CommandFailed("Unable to contact slurm controller")
        return getattr(self, f"_{arguments[0]}")([*arguments[1:]])

    def count(self, program: str) -> int:
        return sum(call[0] == program for call in self.calls)

    def begin(self, id: str) -> None:
        job = self.jobs[id]
        env = os.environ | {"SLURM_JOB_ID": id, "SLURM_ARRAY_TASK_ID": id.partition("_")[2]}
        with Path(job.options["output"]).open("ab") as log:
            job.process = subprocess.Popen(
                ["bash", str(job.script)], env=env, stdout=log, stderr=log, start_new_session=True
            )

    def end(self, id: str, state: str) -> None:
        """As Slurm ends a job: its process is gone."""
        job = self.jobs[id]
        if job.process is not None:
            job.process.kill()
            job.process.wait()
        job.state = state

    def _sbatch(self, arguments: list[str]) -> str:
        if self.refuses:
            raise CommandFailed(self.refuses)
        script = Path(arguments[-1])
        lines = script.read_text().splitlines()
        said = [shlex.split(line)[1] for line in lines if line.startswith("#SBATCH")]
        options = {
            name: value for name, _, value in (each.removeprefix("--").partition("=") for each in said)
        }
        number, tasks = next(self._ids), int(options["array"].partition("-")[2]) + 1
        if tasks > self.most:
            raise CommandFailed("Invalid job array specification")
        for id in [f"{number}_{task}" for task in range(tasks)]:
            self.jobs[id] = Held(options, script, f"7{id.replace('_', '')}")
            if not self.waits:
                self.begin(id)
        return f"{number}\n"

    def _squeue(self, arguments: list[str]) -> str:
        widths = [int(column.partition(":")[2]) for column in arguments[-1].split(",")]
        rows = [self._row(id, job) for id, job in self.jobs.items()]
        return "\n".join(
            "".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows
        )

    def _row(self, id: str, job: Held) -> tuple[str, ...]:
        code = job.process.poll() if job.process else None
        state, status = job.state, job.status
        if not state and code is not None:
            state, status = ("FAILED" if code else "COMPLETED"), (code << 8 if code >= 0 else -code)
        state = state or ("RUNNING" if job.process else "PENDING")
        reason = self.reason if state == "PENDING" else "None"
        return id, state, str(status), reason, job.options["job-name"], job.number, "n1"

    def _scancel(self, arguments: list[str]) -> str:
        ids = [each for each in arguments if each in self.jobs]
        for id in ids:
            job = self.jobs[id]
            if "--signal=USR2" in arguments:
                if job.process is not None and job.process.poll() is None:
                    os.kill(job.process.pid, signal.SIGUSR2)
            elif not ("--state=PENDING" in arguments and job.process is not None):
                self.end(id, "CANCELLED")
        return ""

    def _scontrol(self, _: list[str]) -> str:
        return f"MaxArraySize            = {self.most}\n"

    def _sinfo(self, _: list[str]) -> str:
        return "main\nlong\n"


class Trusting(SlurmEngine):
    """Asks no node before it starts."""

    def check(self, *_: Any, **__: Any) -> None:
        self._find_earlier_jobs()


def engine(slurm: FakeSlurm, logs, **settings) -> SlurmEngine:
    logs.mkdir(parents=True, exist_ok=True)
    made = Trusting(SlurmConfig(**settings), logs, "tests.launcher.fake_worker", slurm)
    made.check()
    return made


def tools(slurm: FakeSlurm) -> LaunchHooks:
    return LaunchHooks(
        describe=lambda made: [facts(each) for each in made],
        engine=lambda _, logs: engine(slurm, logs),
        conclude=lambda *_: None,
    )


def order(logs, name: str = "xs/seed0", **more) -> WorkerSpec:
    return WorkerSpec(
        name, (logs.parent / "run",), {"A": "b c"}, logs / f"{name.replace('/', '-')}.log", **more
    )


def first_run_dir(runs):
    return SweepDir(runs / "trial").run("xs", "mha", 0)


@overload
def handed(made: SlurmEngine, order: WorkerSpec, /) -> SubmittedJob: ...
@overload
def handed(
    made: SlurmEngine, first: WorkerSpec, second: WorkerSpec, /, *orders: WorkerSpec
) -> list[SubmittedJob]: ...
def handed(made: SlurmEngine, /, *orders: WorkerSpec) -> SubmittedJob | list[SubmittedJob]:
    """Submitted together, and looked at."""
    handles = [made.submit(each) for each in orders]
    for handle in handles:
        made.poll(handle)
    return handles[0] if len(handles) == 1 else handles


def named(logs, *names: str) -> list[WorkerSpec]:
    return [dataclasses.replace(order(logs, name), runs=(logs / name,)) for name in names]
