"""Placement options of every block: for each width of its mesh, its time and device seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from harness.config.schema.engine import Schedule
from harness.core.errors import UserError
from harness.launcher.placement.list_scheduling import BlockJob

BISECTIONS = 60
"""Bisections of the interval that contains the ideal makespan, down to the last bit of a float."""


@dataclass(frozen=True)
class RunTask:
    """A run to be placed."""

    name: str
    block: str
    seconds: Mapping[int, float]
    """Wall seconds at each width that its mesh allows, on a device of speed 1."""


@dataclass(frozen=True)
class DevicePartition:
    """All devices of one kind."""

    kind: str
    devices: int
    speed: float = 1.0


class PlacementChoice(NamedTuple):
    """Partition and width of a block, all three as positions."""

    block: int
    partition: int
    option: int


class PlacementOptions:
    """Widths of every block on a machine. Arrays are [blocks, widths], padded with infinity; their seconds
    hold for a device of speed 1."""

    def __init__(self, tasks: Sequence[RunTask], machine: Sequence[DevicePartition]) -> None:
        """Measure every block. Raise UserError if the runs of a block cannot train side by side."""
        self.machine = machine
        by_block: dict[str, list[int]] = {}
        for index, task in enumerate(tasks):
            by_block.setdefault(task.block, []).append(index)
        self.members = [*by_block.values()]
        """Positions of the tasks of each block, in the order of their lanes."""
        self.widths = [_common_widths([tasks[i] for i in members]) for members in self.members]
        shape = (len(self.members), max(map(len, self.widths)))
        self.longest_seconds, self.device_seconds, self.devices = np.full((3, *shape), np.inf)
        self._seconds: list[np.ndarray] = []
        self._jobs: dict[PlacementChoice, BlockJob] = {}
        for row, (members, widths) in enumerate(zip(self.members, self.widths, strict=True)):
            seconds = np.array([[tasks[i].seconds[width] for width in widths] for i in members])
            self._seconds.append(seconds)
            self.longest_seconds[row, : len(widths)] = seconds.max(axis=0)
            self.device_seconds[row, : len(widths)] = seconds.sum(axis=0) * widths
            self.devices[row, : len(widths)] = len(members) * np.array(widths)
        self.seconds = [
            np.where(self.devices <= part.devices, self.longest_seconds / part.speed, np.inf)
            for part in machine
        ]
        """Seconds of the longest run of each block, one array a partition; infinite if it does not fit."""
        self._fastest = np.min(self.seconds, axis=0)
        self._check([*by_block])

    def _check(self, names: Sequence[str]) -> None:
        largest = max(part.devices for part in self.machine)
        row = int(np.argmax(self.devices.min(axis=1)))
        if (need := int(self.devices[row].min())) > largest:
            raise UserError(
                f"engine.devices={largest}: {names[row]} trains {len(self.members[row])} runs side by side "
                f"on {min(self.widths[row])} devices each. Set engine.devices to {need} or more."
            )

    @cached_property
    def ideal_makespan(self) -> float:
        """Lower bound in seconds on the makespan of any placement.

        It is the least T for which every block has a width that ends within T, and the least device seconds
        at such widths fit into devices x T (Ludwig and Tiwari, "Scheduling malleable and nonmalleable
        parallel tasks", SODA 1994). It is at least the total work over the devices, and at least the longest
        run at its widest.
        """
        low, high = 0.0, float(self._fastest.min(axis=1).max())
        while not self._could_end(high):
            low, high = high, 2 * high
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            low, high = (low, middle) if self._could_end(middle) else (middle, high)
        return low

    def _could_end(self, deadline: float) -> bool:
        work = np.where(self._fastest <= deadline, self.device_seconds, np.inf).min(axis=1).sum()
        return bool(work <= deadline * sum(part.devices * part.speed for part in self.machine))

    def choose_by_deadline(self, deadline: float, schedule: Schedule) -> list[PlacementChoice]:
        """Return the cheapest width of each block that meets the deadline, or its fastest one if none does.
        The price is devices for a static schedule, which holds them all at once, and device seconds for a
        queue. Partitions are filled evenly."""
        static = schedule is Schedule.static
        price = self.devices if static else self.device_seconds
        options = [_cheapest(seconds, deadline, price) for seconds in self.seconds]
        if len(self.machine) == 1:
            return [PlacementChoice(block, 0, int(option)) for block, option in enumerate(options[0])]
        rows = np.arange(len(self.members))
        pairs = zip(self.seconds, options, strict=True)
        ends = np.array([seconds[rows, columns] for seconds, columns in pairs])
        prices = np.array([price[rows, columns] for columns in options])
        capacity = [part.devices * (1.0 if static else part.speed) for part in self.machine]
        partitions = _fill_evenly(prices, ends, deadline, np.array(capacity))
        return [PlacementChoice(block, p, int(options[p][block])) for block, p in enumerate(partitions)]

    def job(self, choice: PlacementChoice) -> BlockJob:
        """Return the block of a choice as a job for list scheduling."""
        if choice not in self._jobs:
            lanes = self._seconds[choice.block][:, choice.option] / self.machine[choice.partition].speed
            width = self.widths[choice.block][choice.option]
            self._jobs[choice] = BlockJob(width, tuple(lanes.tolist()))
        return self._jobs[choice]

    def alternatives(self, choice: PlacementChoice) -> list[PlacementChoice]:
        """Return every other partition and width of the block that fits on the machine."""
        return [
            alternative
            for partition, seconds in enumerate(self.seconds)
            for option in np.flatnonzero(np.isfinite(seconds[choice.block])).tolist()
            if (alternative := PlacementChoice(choice.block, partition, option)) != choice
        ]


def _common_widths(runs: Sequence[RunTask]) -> list[int]:
    """Return the widths that every run of a block may have, ascending. Raises UserError without any."""
    widths = sorted(set.intersection(*(set(run.seconds) for run in runs)))
    if not widths:
        raise UserError(
            f"mesh: the runs of {runs[0].block} have no width in common, but a block trains on equal meshes. "
            "Choose a scale.batch that divides alike for all of them."
        )
    return widths


def _cheapest(seconds: np.ndarray, deadline: float, price: np.ndarray) -> np.ndarray:
    """Return the position of each block's cheapest width that meets the deadline, or of its fastest."""
    allowed = np.where(seconds <= deadline, price, np.inf)
    return np.where(np.isfinite(allowed).any(axis=1), allowed.argmin(axis=1), seconds.argmin(axis=1))


def _fill_evenly(prices: np.ndarray, ends: np.ndarray, deadline: float, capacity: np.ndarray) -> list[int]:
    """Return a partition for each block: the emptiest of those that meet the deadline, dearest block first.
    `prices` and `ends` are [partitions, blocks]; a block never goes to a partition with an infinite end."""
    load, partitions = np.zeros(len(capacity)), np.zeros(prices.shape[1], dtype=int)
    for block in np.argsort(-prices.min(axis=0), kind="stable"):
        late = np.where(np.isfinite(ends[:, block]), ends[:, block] > deadline, 2)
        share = (load + prices[:, block]) / capacity
        partitions[block] = np.lexsort((share, late))[0]
        load[partitions[block]] += prices[partitions[block], block]
    return partitions.tolist()
