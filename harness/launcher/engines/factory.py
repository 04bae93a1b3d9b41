"""Construction of the engine that `engine.name` selects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.config.schema.engine import EngineConfig, SlurmConfig, Submit
from harness.core.errors import UserError, did_you_mean
from harness.launcher.engines.engine_api import Engine, WorkerSpec
from harness.launcher.engines.local.fork_client import current_server
from harness.launcher.engines.local.local_engine import LocalEngine
from harness.launcher.engines.ray.ray_engine import RayEngine
from harness.launcher.engines.slurm.slurm_engine import SlurmEngine
from harness.launcher.engines.slurm.steps_engine import StepsEngine


def make_engine(config: EngineConfig, logs: Path, module: str = "harness.worker") -> Engine:
    """Make the engine `config.name`; `logs` is the folder of the workers' logs. Raises UserError. `module`:
    what a worker of Slurm and Ray runs."""
    if config.name == "slurm":
        return make_slurm_engine(config.slurm, logs, module)
    if config.name == "ray":
        return RayEngine(config.ray, logs, module)
    if config.name == "local":
        return LocalEngine(logs, server=current_server())
    hint = did_you_mean(config.name, ["local", "ray", "slurm"])
    raise UserError(f"engine.name={config.name}: no such engine; {hint}")


def make_slurm_engine(
    config: SlurmConfig, logs: Path, module: str = "harness.worker"
) -> SlurmEngine | StepsEngine:
    """Make the engine of `engine.slurm.submit`: batch jobs, or steps of the current allocation."""
    return (StepsEngine if config.submit is Submit.steps else SlurmEngine)(config, logs, module)


def batch_scripts(config: EngineConfig, logs: Path, specs: Sequence[WorkerSpec]) -> list[str]:
    """Return the scripts that Slurm would run for these workers; empty for other engines."""
    return make_slurm_engine(config.slurm, logs).scripts(specs) if config.name == "slurm" else []
