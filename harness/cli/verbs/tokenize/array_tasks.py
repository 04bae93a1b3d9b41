"""Tokenising by tasks of Slurm or Ray, which share the pieces on one cache folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.config.schema.engine import EngineConfig
from harness.config.schema.run import Config
from harness.core.cache.cache_dir import cache_dir
from harness.core.errors import UserError
from harness.core.hashing import hash_json
from harness.launcher.engines.engine_api import WorkerSpec
from harness.launcher.engines.factory import make_engine
from harness.launcher.sweep_lock import stop_on_signal
from harness.launcher.workers.task_array import TaskArray
from harness.records.run.run_lock import acquire, owner, release
from harness.worker.tokenize_sources import TokenizeTask, write_task

MODULE = "harness.worker.tokenize_sources"


MAX_TASKS_IN_RAY = 64
"""Number of tasks that Ray takes before some of them run (ray_engine)."""


@dataclass(frozen=True)
class TaskRequest:
    """Tasks that are asked for."""

    count: int
    cpus: int
    """CPUs that each asks for."""
    resources: TokenizeTask
    waits: bool
    """True if the command waits until the work is done."""


def run_tasks(
    configs: Sequence[Config],
    request: TaskRequest,
    progress: Callable[[], float],
    note: Callable[[str], None],
) -> Path:
    """Tokenise by tasks of the engine of the configs, or only submit them. Return the folder of their logs.
    `progress`: amount that is tokenised. Raises UserError, and Interrupted on Ctrl-C."""
    settings = configs[0].engine
    _check(settings, request)
    folder = _folder(configs)
    lock = folder / "driver.lock"
    if not acquire(lock):
        process = owner(lock)
        name = f"process {process.pid} on {process.host}" if process else "another process"
        raise UserError(f"{folder}: {name} already watches these tasks. Wait for it, or stop it.")
    try:
        specs = _specs(folder, configs, request)
        engine = make_engine(_cpu_settings(settings), folder, MODULE)
        with stop_on_signal():
            engine.check(specs, _input_files(configs), note)
        array = TaskArray(engine, progress, note, settings.attempts, settings.backoff_seconds)
        (array.run if request.waits else array.submit)(specs)
    finally:
        release(lock)
    return folder


def _check(settings: EngineConfig, request: TaskRequest) -> None:
    if settings.name == "ray" and not request.waits and request.count > MAX_TASKS_IN_RAY:
        raise UserError(
            f"--no-wait --tasks={request.count}: Ray takes {MAX_TASKS_IN_RAY} tasks before some of them run. "
            "Ask for fewer, or wait."
        )
    if settings.name == "ray" and settings.ray.address is None and not request.waits:
        raise UserError(
            "--no-wait: engine.ray.address=null starts a Ray that ends with the command. Name the head of a "
            "cluster with engine.ray.address=HOST:PORT, or wait."
        )


def _folder(configs: Sequence[Config]) -> Path:
    """Return the folder of the tasks' scripts and logs. The same command finds it again."""
    folder = cache_dir("tasks") / hash_json([_data_of(config) for config in configs])[:16]
    folder.mkdir(exist_ok=True)
    return folder


def _data_of(config: Config) -> list[object]:
    return [config.data, config.evaluation.sets]


def _specs(folder: Path, configs: Sequence[Config], request: TaskRequest) -> list[WorkerSpec]:
    names = [f"task{index}" for index in range(request.count)]
    return [
        WorkerSpec(
            name,
            (write_task(folder / f"{name}.json", configs, request.resources),),
            {},
            folder / f"{name}.log",
            devices=request.cpus,
        )
        for name in names
    ]


def _cpu_settings(settings: EngineConfig) -> EngineConfig:
    """Return the settings of the engine for tasks that take a CPU a process, and no accelerator."""
    return replace(settings, slurm=replace(settings.slurm, cpus=1, gpus=0))


def _input_files(configs: Sequence[Config]) -> list[Path]:
    """Return the files and folders that a node must see."""
    names = {config.data.tokenizer for config in configs}
    for config in configs:
        sources, sets = config.data.sources.values(), config.evaluation.sets.values()
        names |= {source.path for source in (*sources, *sets)}
        names |= {source.validation for source in sources if source.validation}
    return [path for name in sorted(names) if (path := Path(name).expanduser()).exists()]
