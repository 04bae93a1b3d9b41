"""Several workers of one order: they live and end together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from harness.fleet.engines import HELD, Exit, Order
from harness.records.claim import holder
from harness.records.layout import RunDir

Handle = TypeVar("Handle")
GRACE = 30.0
"""Seconds for which the others of a process that ended may end by themselves."""


@dataclass
class Gang(Generic[Handle]):
    """One handle for the processes of a run, in their order."""

    members: Sequence[Handle]
    clock: Callable[[], float] = time.monotonic
    exits: dict[int, Exit] = field(default_factory=dict)
    """By index, in the order in which they were seen to end."""
    since: float = 0.0
    """When the first one was."""

    def poll(self, one: Callable[[Handle], Exit | None], end: Callable[[Handle], None]) -> Exit | None:
        """How the first one ended that did not end well, as soon as all have; those that outlive another one
        by too long are ended."""
        for index, member in enumerate(self.members):
            if index not in self.exits and (found := one(member)) is not None:
                self.since = self.since if self.exits else self.clock()
                self.exits[index] = found
        left = [member for index, member in enumerate(self.members) if index not in self.exits]
        if self.exits and self.clock() - self.since > GRACE:
            for member in left:
                end(member)
        return None if left else self._together()

    def _together(self) -> Exit:
        if self.exits[0].code in (0, HELD):  # what process 0 says of the run stands
            return self.exits[0]
        killed = [index for index, each in self.exits.items() if each.code is None or each.code < 0]
        index = killed[0] if killed else next(iter(self.exits))
        found = self.exits[index]
        return Exit(found.code, f"process {index} of {len(self.members)}: {found.words}")


def said_by_first(order: Order, end: Exit) -> Exit:
    """Where only the end of all processes together is known: what ended them, if process 0 said HELD, shows
    in who has the run now."""
    if order.processes == 1 or not end.code or not any(holder(RunDir(run).claim) for run in order.runs):
        return end
    return Exit(HELD, end.words)
