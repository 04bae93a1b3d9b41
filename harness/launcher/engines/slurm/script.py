"""Batch scripts of workers: the resources requested from Slurm, and the commands that run."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.config.process_group import GROUP_VARIABLE, INDEX_VARIABLE, LOOPBACK, ProcessGroup, to_env
from harness.config.schema.engine import SlurmConfig
from harness.core.hashing import hash_json
from harness.launcher.engines.engine_api import WorkerSpec, remote_environment
from harness.records.run.provenance import code_hash

LAUNCH_ID = "$SLURM_JOB_ID.$SLURM_STEP_ID.${SLURM_RESTART_COUNT:-0}"
"""Shell text that names one start of a run's processes; it differs when Slurm restarts the job."""
_CASE_LINE = "case $SLURM_ARRAY_TASK_ID in\n"
_CODE_LINE = "# harness code "


@dataclass(frozen=True)
class WorkerCommand:
    """The command `python -m argv` of a worker; argv is a module and its arguments."""

    spec: WorkerSpec
    argv: Sequence[str]


def job_name(logs: Path, stem: str) -> str:
    """Return the job name of the script `stem`.sh. A later driver finds its sweep's jobs by this name."""
    return _name_prefix(logs) + stem


def _name_prefix(logs: Path) -> str:
    return f"ab-{hash_json(str(logs.absolute()))[:10]}-"


def slurm_log(logs: Path, name: str) -> Path:
    """Return the log of Slurm's own messages for a job name; each worker also has its own log."""
    return logs / f"{name.removeprefix(_name_prefix(logs))}.slurm.log"


def has_single_task(logs: Path, name: str) -> bool:
    """Return whether the array of that name has one task."""
    return f"#SBATCH {_array_option(1)}\n" in _read_script(logs, name)


def submitted_code(logs: Path, name: str) -> str:
    """Return the code hash with which the array of that name was submitted; empty for older versions."""
    return _read_script(logs, name).partition(_CODE_LINE)[2].partition("\n")[0]


def _read_script(logs: Path, name: str) -> str:
    """Return the script of a job name; empty if it is missing or another sweep's."""
    file = logs / f"{name.removeprefix(_name_prefix(logs))}.sh"
    return file.read_text() if name.startswith(_name_prefix(logs)) and file.exists() else ""


def _array_option(count: int) -> str:
    return f"--array=0-{count - 1}"


def submitted_runs(logs: Path, name: str) -> dict[int, list[str]]:
    """Read from its script the runs of each task of an array. Empty for an array of another sweep."""
    _, _, tasks = _read_script(logs, name).partition(_CASE_LINE)
    lines = [shlex.split(line) for line in tasks.partition("\nesac\n")[0].splitlines()]
    return {int(words[0].rstrip(")")): words[words.index("--") + 1 : -1] for words in lines}


def array_script(config: SlurmConfig, logs: Path, stem: str, commands: Sequence[WorkerCommand]) -> str:
    """Return the script of one array with a task per command; all commands have the same `array_key`. The
    script contains all that differs between tasks, so a task that Slurm restarts does the same again."""
    head, start = _setup_and_start(config, commands[0])
    options = [
        f"--job-name={job_name(logs, stem)}",
        _array_option(len(commands)),
        f"--output={_literal_path(slurm_log(logs, job_name(logs, stem)))}",
        "--open-mode=append",
        *resource_options(config, commands[0].spec),
        *_batch_options(config),
    ]
    tasks = [f"{index}) {_task_setup(command)} ;;" for index, command in enumerate(commands)]
    directives = [f"#SBATCH {shlex.quote(option)}" for option in options]
    cases = [_CODE_LINE + code_hash(), _CASE_LINE + "\n".join(tasks), "esac"]
    lines = [*directives, *cases, 'exec >> "$log" 2>&1', *head]
    step = ["srun", "--export=ALL", *_task_options(config, commands[0].spec), "--kill-on-bad-exit=1"]
    prefix = f"{shlex.join(step)} " if commands[0].spec.processes > 1 else ""
    return _join_lines([*lines, f"exec {prefix}{start}"])


def array_key(config: SlurmConfig, command: WorkerCommand) -> str:
    """Return a key that is equal for commands that may be tasks of one array."""
    return repr((_setup_and_start(config, command), resource_options(config, command.spec)))


def step_script(config: SlurmConfig, command: WorkerCommand) -> str:
    """Return the script that `srun` starts in every task of a step."""
    head, start = _setup_and_start(config, command)
    return _join_lines([*head, _task_setup(command), f"exec {start}"])


def resource_options(config: SlurmConfig, spec: WorkerSpec) -> list[str]:
    """Return the options that `sbatch` and `srun` share."""
    selection = {"constraint": config.constraint, "nodelist": config.nodelist}
    options = [f"--{option}={value}" for option, value in selection.items() if value]
    return [*_task_options(config, spec), *options, *config.extra]


def log_options(name: str, log: Path) -> list[str]:
    """Return the `srun` options for a step's name and log."""
    return [f"--job-name={name}", f"--output={_literal_path(log)}", "--open-mode=append"]


def _task_options(config: SlurmConfig, spec: WorkerSpec) -> list[str]:
    """Return the size of a job: one task per process. A single process has all its devices on one node."""
    devices = spec.devices // spec.processes
    gpus = "gpus-per-task" if spec.processes > 1 else "gpus-per-node"
    values = {
        "nodes": 1 if spec.processes == 1 else None,
        "ntasks": spec.processes,
        "cpus-per-task": max(1, config.cpus * devices),
        gpus: config.gpus * devices or None,
    }
    return [f"--{option}={value}" for option, value in values.items() if value]


def _batch_options(config: SlurmConfig) -> list[str]:
    """Return the options of a batch job: partition, account, time limit, and the signal before the limit. The
    signal is USR2: `srun` passes it on to every process, while TERM would end `srun` itself."""
    values = {
        "partition": config.partition,
        "account": config.account,
        "time": config.time_limit,
        "signal": f"B:USR2@{config.save_seconds}" if config.time_limit else None,
    }
    return ["--requeue", *(f"--{option}={value}" for option, value in values.items() if value)]


def _task_setup(command: WorkerCommand) -> str:
    """Return the shell code that sets the log and the arguments of one worker."""
    return f"log={shlex.quote(str(command.spec.log.absolute()))}; set -- {shlex.join(command.argv[1:])}"


def _setup_and_start(config: SlurmConfig, command: WorkerCommand) -> tuple[list[str], str]:
    """Return the setup lines and the start command. It is `exec`uted, so that it gets the job's signals and
    its exit status is the job's."""
    env = remote_environment(command.spec)
    exports = [f"export {key}={shlex.quote(value)}" for key, value in env.items()]
    head = [f"cd {shlex.quote(os.getcwd())}", *config.setup, *exports]
    start = f'{shlex.join([sys.executable, "-P", "-m", command.argv[0]])} "$@"'
    if command.spec.processes > 1:
        start = f'bash -c {shlex.quote(_process_command(command.spec.processes, start))} "$log" "$@"'
    return head, start


def _process_command(count: int, start: str) -> str:
    """Return the command of one process of a run. Process 0 writes to the log $0, others to one beside it."""
    env = to_env(ProcessGroup(count, LAUNCH_ID, "$host"))
    description = json.dumps(env[GROUP_VARIABLE], ensure_ascii=False)  # the shell expands variables in it
    return (
        '[ "$SLURM_PROCID" = 0 ] || exec >> "${0%.log}.$SLURM_PROCID.log" 2>&1\n'
        f'host=; [ "${{SLURM_STEP_NUM_NODES:-}}" != 1 ] || host={LOOPBACK}\n'
        f"export {INDEX_VARIABLE}=$SLURM_PROCID {GROUP_VARIABLE}={description}\n"
        f"exec {start}"
    )


def _literal_path(file: Path) -> str:
    """Return a path for Slurm with `%`, which starts a placeholder, escaped."""
    return str(file.absolute()).replace("%", "%%")


def _join_lines(lines: Sequence[str]) -> str:
    return "\n".join(["#!/bin/bash", *lines]) + "\n"
