"""Workers as batch scripts: what Slurm is asked for, and what runs there."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.config.process_group import INDEX, NAME, Processes, to_env
from harness.config.schema.engine import SlurmConfig
from harness.core.hashing import digest
from harness.launcher.engines.engine_api import Order, environment

START = "$SLURM_JOB_ID.$SLURM_STEP_ID.${SLURM_RESTART_COUNT:-0}"
"""Names a start of the processes of a run, also where Slurm starts a job again by itself."""


_CASE = "case $SLURM_ARRAY_TASK_ID in\n"


@dataclass(frozen=True)
class Work:
    """`python -m module argument...` as an order has it."""

    order: Order
    module: str
    arguments: tuple[str, ...]


def job_name(logs: Path, stem: str) -> str:
    """Of the script `stem`.sh of a sweep: by it a driver that comes back finds what it had submitted."""
    return _prefix(logs) + stem


def _prefix(logs: Path) -> str:
    return f"ab-{digest(str(logs.absolute()))[:10]}-"


def slurm_log(logs: Path, name: str) -> Path:
    """What Slurm itself says of the jobs of that name; each worker has a log of its own."""
    return logs / f"{name.removeprefix(_prefix(logs))}.slurm.log"


def is_alone(logs: Path, name: str) -> bool:
    """Whether the array of that name has one task."""
    file = logs / f"{name.removeprefix(_prefix(logs))}.sh"
    return file.exists() and f"#SBATCH {_tasks_of(1)}\n" in file.read_text()


def _tasks_of(count: int) -> str:
    return f"--array=0-{count - 1}"


def handed_in(logs: Path, name: str) -> dict[int, list[str]]:
    """What each task of the array of that name trains, by its script; nothing for another sweep's."""
    file = logs / f"{name.removeprefix(_prefix(logs))}.sh"
    if not name.startswith(_prefix(logs)) or not file.exists():
        return {}
    _, _, tasks = file.read_text().partition(_CASE)
    lines = [shlex.split(line) for line in tasks.partition("\nesac\n")[0].splitlines()]
    return {int(words[0].rstrip(")")): words[words.index("--") + 1 : -1] for words in lines}


def array_script(config: SlurmConfig, logs: Path, stem: str, works: Sequence[Work]) -> str:
    """One array for works that ask for the same (`alike`), a task each. All that tells them apart stands in
    it, so that a task which Slurm starts again, later and elsewhere, is what it was."""
    head, start = _frame(config, works[0])
    options = [
        f"--job-name={job_name(logs, stem)}",
        _tasks_of(len(works)),
        f"--output={_pattern(slurm_log(logs, job_name(logs, stem)))}",
        "--open-mode=append",
        *resources(config, works[0].order),
        *_batch_options(config),
    ]
    tasks = [f"{index}) {_task(work)} ;;" for index, work in enumerate(works)]
    asked = [f"#SBATCH {shlex.quote(option)}" for option in options]
    lines = [*asked, _CASE + "\n".join(tasks), "esac", 'exec >> "$log" 2>&1', *head]
    step = ["srun", "--export=ALL", *_tasks(config, works[0].order), "--kill-on-bad-exit=1"]
    return _joined([*lines, f"exec {shlex.join(step)} {start}" if _several(works[0]) else f"exec {start}"])


def alike(config: SlurmConfig, work: Work) -> str:
    """Equal where works may be tasks of one array."""
    return repr((_frame(config, work), resources(config, work.order)))


def step_script(config: SlurmConfig, work: Work) -> str:
    """That `srun` starts in every task of a step."""
    head, start = _frame(config, work)
    return _joined([*head, _task(work), f"exec {start}"])


def resources(config: SlurmConfig, order: Order) -> list[str]:
    """Options that `sbatch` and `srun` share."""
    asked = {"constraint": config.constraint, "nodelist": config.nodelist}
    named = [f"--{option}={value}" for option, value in asked.items() if value]
    return [*_tasks(config, order), *named, *config.extra]


def log_options(name: str, log: Path) -> list[str]:
    """Of a step: its name, and where it speaks."""
    return [f"--job-name={name}", f"--output={_pattern(log)}", "--open-mode=append"]


def _tasks(config: SlurmConfig, order: Order) -> list[str]:
    """A process is a task. One alone has its devices on one node; several may lie on several."""
    each = order.devices // order.processes
    gpus = "gpus-per-task" if order.processes > 1 else "gpus-per-node"
    asked = {
        "nodes": 1 if order.processes == 1 else None,
        "ntasks": order.processes,
        "cpus-per-task": max(1, config.cpus * each),
        gpus: config.gpus * each or None,
    }
    return [f"--{option}={value}" for option, value in asked.items() if value]


def _batch_options(config: SlurmConfig) -> list[str]:
    """Options of a job of its own: where it waits, how long it runs, and that it saves before it is cut.
    USR2, since `srun` takes TERM for its own end, and passes this one on to every process."""
    asked = {
        "partition": config.partition,
        "account": config.account,
        "time": config.time_limit,
        "signal": f"B:USR2@{config.save_seconds}" if config.time_limit else None,
    }
    return ["--requeue", *(f"--{option}={value}" for option, value in asked.items() if value)]


def _several(work: Work) -> bool:
    return work.order.processes > 1


def _task(work: Work) -> str:
    """What tells this work from others: its log, and its arguments."""
    return f"log={shlex.quote(str(work.order.log.absolute()))}; set -- {shlex.join(work.arguments)}"


def _frame(config: SlurmConfig, work: Work) -> tuple[list[str], str]:
    """Lines before the worker starts, and the command that does, to be `exec`uted, so that signals reach it
    and its exit status is the job's."""
    exports = [f"export {key}={shlex.quote(value)}" for key, value in environment(work.order).items()]
    head = [f"cd {shlex.quote(os.getcwd())}", *config.setup, *exports]
    start = f'{shlex.join([sys.executable, "-m", work.module])} "$@"'
    if _several(work):
        start = f'bash -c {shlex.quote(_of_several(work.order.processes, start))} "$log" "$@"'
    return head, start


def _of_several(count: int, start: str) -> str:
    """One process of a run, as its task starts it; the first speaks into the log ($0), others beside it."""
    env: Mapping[str, str] = to_env(Processes(count, START))
    known = json.dumps(env[NAME], ensure_ascii=False)  # in double quotes, where the shell puts in START
    return (
        '[ "$SLURM_PROCID" = 0 ] || exec >> "${0%.log}.$SLURM_PROCID.log" 2>&1\n'
        f"export {INDEX}=$SLURM_PROCID {NAME}={known}\n"
        f"exec {start}"
    )


def _pattern(file: Path) -> str:
    """As Slurm wants a path in which nothing is to be filled in."""
    return str(file.absolute()).replace("%", "%%")


def _joined(lines: Sequence[str]) -> str:
    return "\n".join(["#!/bin/bash", *lines]) + "\n"
