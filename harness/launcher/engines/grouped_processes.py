"""Several workers of one order: they live and end together."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

from harness.config.process_group import Processes, to_env
from harness.launcher.engines.engine_api import HELD, Exit, Order
from harness.records.paths import RunDir
from harness.records.run.run_lock import holder

Handle = TypeVar("Handle")
GRACE = 30.0
"""Seconds for which the others of a process that ended may end by themselves."""


def shares(order: Order, host: str) -> list[Order]:
    """One order a process, with an environment and a log of its own. `host`: by which the others reach
    process 0, whose log is the order's."""
    count = order.processes
    if count == 1:
        return [order]
    start = uuid.uuid4().hex
    each = [to_env(Processes(count, start, host, index=index)) for index in range(count)]
    return [
        replace(order, env={**order.env, **own}, log=log_of(order, index)) for index, own in enumerate(each)
    ]


def log_of(order: Order, index: int) -> Path:
    """Where a process of a worker speaks."""
    return order.log.with_suffix(f".{index}.log") if index else order.log


@dataclass
class Gang(Generic[Handle]):
    """One handle for the processes of a run, in their order."""

    members: Sequence[Handle]
    clock: Callable[[], float] = time.monotonic
    exits: dict[int, Exit] = field(default_factory=dict)
    """By index, in the order in which they were seen to end."""
    since: float = 0.0
    """When the first one was."""
    told: bool = False
    """Whether those that outlive it were told to end."""

    def poll(self, one: Callable[[Handle], Exit | None], end: Callable[[Handle], None]) -> Exit | None:
        """How the first one ended that did not end well, as soon as all have; those that outlive another one
        by too long are ended."""
        for index, member in enumerate(self.members):
            if index not in self.exits and (found := one(member)) is not None:
                self.since = self.since if self.exits else self.clock()
                self.exits[index] = found
        left = [member for index, member in enumerate(self.members) if index not in self.exits]
        if self.exits and not self.told and self.clock() - self.since > GRACE:
            self.told = True
            for member in left:
                end(member)
        return None if left else self._together()

    def _together(self) -> Exit:
        if self.exits[0].code in (0, HELD):  # what process 0 says of the run stands
            return self.exits[0]
        if len(self.members) == 1:
            return self.exits[0]
        index = min(self.exits, key=lambda each: _weight(self.exits[each]))
        found = self.exits[index]
        words = f"process {index} of {len(self.members)}: {found.words}"
        return replace(found, words=words, process=index)


def _weight(end: Exit) -> int:
    """Least for the end that explains the others: processes that lose one end by themselves."""
    if end.taken_away:
        return 0
    return 1 if end.code is None or end.code < 0 else 2


def said_by_first(order: Order, end: Exit) -> Exit:
    """Where only the end of all processes together is known: what ended them, if process 0 said HELD, shows
    in who has the run now."""
    if order.processes == 1 or not end.code or not any(holder(RunDir(run).claim) for run in order.runs):
        return end
    return Exit(HELD, end.words)
