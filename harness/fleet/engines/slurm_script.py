"""A worker as a batch script: what Slurm is asked for, and what runs there."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.config.identity import digest
from harness.config.schema import SlurmConfig
from harness.fleet.engines import Order, environment


def job_name(logs: Path, order: Order) -> str:
    """Sweep and assignment: by it a driver that comes back finds what it had submitted."""
    return _prefix(logs) + order.log.stem


def _prefix(logs: Path) -> str:
    return f"ab-{digest(str(logs.absolute()))[:10]}-"


def handed_in(logs: Path, name: str) -> list[str]:
    """The runs of the job of that name, by its script; none for another sweep's."""
    file = logs / f"{name.removeprefix(_prefix(logs))}.sh"
    if not name.startswith(_prefix(logs)) or not file.exists():
        return []
    words = shlex.split(file.read_text().rstrip().rpartition("\n")[2])
    return words[words.index("-m") + 2 :]


def resources(config: SlurmConfig, order: Order, name: str) -> list[str]:
    """Options that `sbatch` and `srun` share."""
    asked = {
        "job-name": name,
        "nodes": 1,
        "ntasks": 1,
        "cpus-per-task": max(1, config.cpus * order.devices),
        "gpus-per-node": config.gpus * order.devices or None,
        "output": str(order.log.absolute()).replace("%", "%%"),
        "open-mode": "append",
        "constraint": config.constraint,
        "nodelist": config.nodelist,
    }
    return [f"--{option}={value}" for option, value in asked.items() if value] + [*config.extra]


def batch_options(config: SlurmConfig) -> list[str]:
    """Options of a job of its own: where it waits, how long it runs, and that it saves before it is cut."""
    asked = {
        "partition": config.partition,
        "account": config.account,
        "time": config.time_limit,
        "signal": f"B:TERM@{config.save_seconds}" if config.time_limit else None,
    }
    return ["--requeue", *(f"--{option}={value}" for option, value in asked.items() if value)]


def script(config: SlurmConfig, order: Order, argv: Sequence[str], options: Sequence[str] = ()) -> str:
    """`exec`, so that signals reach the worker and its exit status is the job's."""
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH {shlex.quote(option)}" for option in options),
        f"cd {shlex.quote(os.getcwd())}",
        *config.setup,
        *(f"export {key}={shlex.quote(value)}" for key, value in environment(order).items()),
        f"exec {shlex.join([sys.executable, '-m', *argv])}",
    ]
    return "\n".join(lines) + "\n"
