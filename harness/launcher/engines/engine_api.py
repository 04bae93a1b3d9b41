"""The protocol between the launcher and its engines: what starts, watches and ends workers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from harness.records.run.run_lock import HELD
from harness.records.run.status import Writer

__all__ = ["HELD", "Engine", "Exit", "Order", "environment", "runs_of"]

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
