"""How workers are started, watched and ended: one small protocol, one engine a scheduler."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from harness.config.schema.engine import EngineConfig, SlurmConfig, Submit
from harness.core.errors import UserError, nearest
from harness.records.run.run_lock import HELD
from harness.records.run.status import Writer

if TYPE_CHECKING:
    from harness.launcher.engines.slurm.engine import SlurmEngine
    from harness.launcher.engines.slurm.steps import StepsEngine

__all__ = ["HELD", "Engine", "Exit", "Order", "environment", "make_engine", "runs_of", "scripts"]

PASSED_ON = ("PYTHONPATH", "AB_HARNESS_CACHE")
"""Of the driver's environment, to workers elsewhere, whatever a scheduler itself hands on."""


@dataclass(frozen=True)
class Order:
    """A worker to start: `harness.worker.main(runs, env)`, on these cores, speaking into this log."""

    name: str
    runs: tuple[Path, ...]
    env: Mapping[str, str]
    log: Path
    cores: tuple[int, ...] = ()
    """Empty: all that the driver may use."""
    devices: int = 1
    """Of the whole worker."""
    platform: str = "cpu"
    processes: int = 1
    """That train its one run together (config.process_group); `env` and `cores` are those of each."""


@dataclass(frozen=True)
class Exit:
    """How a worker ended. `code`: exit status, negative for a signal, None where nobody can know."""

    code: int | None
    words: str
    taken_away: bool = False
    """Its machine failed or was given to others: no attempt is counted."""
    process: int = field(default=0, compare=False)
    """Of several, the one whose end this is."""
    said: str = ""
    """By the scheduler, where its own words tell more than the worker's log (engines.words)."""


def environment(order: Order) -> dict[str, str]:
    """Variables of a worker that is no child of the driver."""
    return {key: os.environ[key] for key in PASSED_ON if key in os.environ} | dict(order.env)


def runs_of(order: Order) -> list[str]:
    """As a worker is told them."""
    return [str(run.absolute()) for run in order.runs]


class Engine(Protocol):
    """A handle is the engine's own business; it means nothing to another engine."""

    def check(self, orders: Sequence[Order], needs: Sequence[Path], note: Callable[[str], None]) -> None:
        """Raises UserError where a worker could not do its work, before the first is started. `orders`: what
        will be submitted, `needs`: files that workers read."""
        ...

    def submit(self, order: Order) -> Any: ...

    def adopt(self, writer: Writer, order: Order) -> Any:
        """A handle for a worker that another driver started for this order. Raises UserError if it cannot be
        reached."""
        ...

    def poll(self, handle: Any) -> Exit | None:
        """None while the worker lives."""
        ...

    def waiting(self, handle: Any) -> str:
        """Why the worker has not begun, though nothing ended it; empty once it has."""
        ...

    def cancel(self, handle: Any, *, hard: bool) -> None:
        """Ask a worker to save and leave, or end it at once."""
        ...

    def close(self) -> None:
        """Let go of the workers without ending them."""
        ...


def make_engine(config: EngineConfig, logs: Path) -> Engine:
    """The engine of that name; `logs` is the folder where workers speak."""
    if config.name == "slurm":
        return make_slurm(config.slurm, logs)
    if config.name == "ray":
        from harness.launcher.engines.ray.engine import RayEngine

        return RayEngine(config.ray, logs)
    if config.name != "local":
        raise UserError(
            f"engine.name={config.name}: no such engine; {nearest(config.name, ['local', 'ray', 'slurm'])}"
        )
    from harness.launcher.engines.local.engine import LocalEngine

    return LocalEngine(logs)


def make_slurm(config: SlurmConfig, logs: Path) -> SlurmEngine | StepsEngine:
    if config.submit is Submit.steps:
        from harness.launcher.engines.slurm.steps import StepsEngine

        return StepsEngine(config, logs)
    from harness.launcher.engines.slurm.engine import SlurmEngine

    return SlurmEngine(config, logs)


def scripts(config: EngineConfig, logs: Path, orders: Sequence[Order]) -> list[str]:
    """What a scheduler would be handed, worker by worker; nothing where there is none."""
    if config.name != "slurm":
        return []
    return make_slurm(config.slurm, logs).scripts(orders)
