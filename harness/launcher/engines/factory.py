"""The engine that `engine.name` asks for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.config.schema.engine import EngineConfig, SlurmConfig, Submit
from harness.core.errors import UserError, nearest
from harness.launcher.engines.engine_api import Engine, Order

if TYPE_CHECKING:
    from harness.launcher.engines.slurm.slurm_engine import SlurmEngine
    from harness.launcher.engines.slurm.steps_engine import StepsEngine


def make_engine(config: EngineConfig, logs: Path) -> Engine:
    """The engine of that name; `logs` is the folder where workers speak."""
    if config.name == "slurm":
        return make_slurm(config.slurm, logs)
    if config.name == "ray":
        from harness.launcher.engines.ray.ray_engine import RayEngine

        return RayEngine(config.ray, logs)
    if config.name != "local":
        raise UserError(
            f"engine.name={config.name}: no such engine; {nearest(config.name, ['local', 'ray', 'slurm'])}"
        )
    from harness.launcher.engines.local.local_engine import LocalEngine

    return LocalEngine(logs)


def make_slurm(config: SlurmConfig, logs: Path) -> SlurmEngine | StepsEngine:
    if config.submit is Submit.steps:
        from harness.launcher.engines.slurm.steps_engine import StepsEngine

        return StepsEngine(config, logs)
    from harness.launcher.engines.slurm.slurm_engine import SlurmEngine

    return SlurmEngine(config, logs)


def scripts(config: EngineConfig, logs: Path, orders: Sequence[Order]) -> list[str]:
    """What a scheduler would be handed, worker by worker; nothing where there is none."""
    if config.name != "slurm":
        return []
    return make_slurm(config.slurm, logs).scripts(orders)
