"""How workers are started, watched and ended: one small protocol, one engine a scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.config.errors import UserError, nearest
from harness.config.schema import EngineConfig
from harness.records.status import Writer

HELD = 75
"""Exit status of a worker that found its runs in the hands of another one."""


@dataclass(frozen=True)
class Order:
    """A worker to start: `harness.worker.main(runs, env)`, on these cores, speaking into this log."""

    name: str
    runs: tuple[Path, ...]
    env: Mapping[str, str]
    log: Path
    cores: tuple[int, ...] = ()
    """Empty: all that the driver may use."""
    processes: int = 1
    """That train its one run together (config.processes); `env` and `cores` are those of each."""


@dataclass(frozen=True)
class Exit:
    """How a worker ended. `code`: exit status, negative for a signal, None where nobody can know."""

    code: int | None
    words: str


class Engine(Protocol):
    """A handle is the engine's own business; it means nothing to another engine."""

    def submit(self, order: Order) -> Any: ...

    def adopt(self, writer: Writer) -> Any:
        """A handle for a worker that another driver started. Raises UserError if it cannot be reached."""
        ...

    def poll(self, handle: Any) -> Exit | None:
        """None while the worker lives."""
        ...

    def cancel(self, handle: Any, *, hard: bool) -> None:
        """Ask a worker to save and leave, or end it at once."""
        ...

    def close(self) -> None:
        """Let go of the workers without ending them."""
        ...


def make_engine(config: EngineConfig, logs: Path) -> Engine:
    """The engine of that name; `logs` is the folder where workers speak."""
    if config.name != "local":
        raise UserError(f"engine.name={config.name}: no such engine; {nearest(config.name, ['local'])}")
    from harness.fleet.engines.local import LocalEngine

    return LocalEngine(logs)
