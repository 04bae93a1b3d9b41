"""Every block by every width that its mesh allows: its time, its device seconds, and the ideal makespan."""

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
"""Of the interval in which the ideal makespan is sought: to the last bit of a float."""


@dataclass(frozen=True)
class RunTask:
    """A run to be placed."""

    name: str
    block: str
    seconds: Mapping[int, float]
    """Wall seconds at each width that its mesh allows, on a device of speed 1."""


@dataclass(frozen=True)
class DevicePartition:
    """The devices of one kind."""

    kind: str
    devices: int
    speed: float = 1.0


class PlacementChoice(NamedTuple):
    """Where a block is trained (position of the partition), and at which of its widths (position)."""

    block: int
    partition: int
    option: int


class PlacementOptions:
    """Arrays are [blocks, widths], padded with infinity; time and work are those of a device of speed 1."""

    def __init__(self, tasks: Sequence[RunTask], machine: Sequence[DevicePartition]) -> None:
        """Raises UserError for a block whose runs cannot train side by side."""
        self.machine = machine
        by_block: dict[str, list[int]] = {}
        for index, task in enumerate(tasks):
            by_block.setdefault(task.block, []).append(index)
        self.members = [*by_block.values()]
        """Positions of the tasks of each block, in the order of their lanes."""
        self.widths = [_shared_widths([tasks[i] for i in members]) for members in self.members]
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
        self.seconds = [self._seconds_on(part) for part in machine]
        """By partition: the longest run of each block; infinite where the block does not fit."""
        self._check([*by_block])

    def _seconds_on(self, part: DevicePartition) -> np.ndarray:
        return np.where(self.devices <= part.devices, self.longest_seconds / part.speed, np.inf)

    def _check(self, names: Sequence[str]) -> None:
        largest = max(part.devices for part in self.machine)
        row = int(np.argmax(self.devices.min(axis=1)))
        if (need := int(self.devices[row].min())) > largest:
            raise UserError(
                f"engine.devices={largest}: {names[row]} trains {len(self.members[row])} runs side by side "
                f"on {min(self.widths[row])} devices each; give it {need} or more"
            )

    @cached_property
    def ideal_makespan(self) -> float:
        """Seconds below which no placement ends: the least T for which every block has a width that ends
        within T, and the least device seconds at such widths fit into devices x T (Ludwig and Tiwari,
        "Scheduling malleable and nonmalleable parallel tasks", SODA 1994). Never below total work over
        devices, nor below the longest run at its widest."""
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

    @cached_property
    def _fastest(self) -> np.ndarray:
        return np.min(self.seconds, axis=0)

    def choose_by_deadline(self, deadline: float, schedule: Schedule) -> list[PlacementChoice]:
        """For each block the width that ends in time with the least devices (static: all are held at once)
        or the least device seconds (queue), else its fastest one. Kinds of device are filled evenly."""
        static = schedule is Schedule.static
        price = self.devices if static else self.device_seconds
        options = [_cheapest(seconds, deadline, price) for seconds in self.seconds]
        if len(self.machine) == 1:
            return [PlacementChoice(block, 0, int(option)) for block, option in enumerate(options[0])]
        rows = np.arange(len(self.members))
        ends = np.array([seconds[rows, each] for seconds, each in zip(self.seconds, options, strict=True)])
        prices = np.array([price[rows, each] for each in options])
        capacity = [part.devices * (1.0 if static else part.speed) for part in self.machine]
        kinds = _filled_evenly(prices, ends, deadline, np.array(capacity))
        return [PlacementChoice(block, kind, int(options[kind][block])) for block, kind in enumerate(kinds)]

    def job(self, choice: PlacementChoice) -> BlockJob:
        if choice not in self._jobs:
            self._jobs[choice] = self._job(choice)
        return self._jobs[choice]

    def _job(self, choice: PlacementChoice) -> BlockJob:
        width, seconds = self.widths[choice.block][choice.option], self._seconds[choice.block]
        lanes = seconds[:, choice.option] / self.machine[choice.partition].speed
        return BlockJob(width, tuple(lanes.tolist()))

    def alternatives(self, choice: PlacementChoice) -> list[PlacementChoice]:
        """Every other place and width of its block that the machine holds."""
        return [
            other
            for partition, seconds in enumerate(self.seconds)
            for option in np.flatnonzero(np.isfinite(seconds[choice.block])).tolist()
            if (other := PlacementChoice(choice.block, partition, option)) != choice
        ]


def _shared_widths(runs: Sequence[RunTask]) -> list[int]:
    """Widths that every run of a block may have, ascending. Raises UserError where there is none."""
    shared = sorted(set.intersection(*(set(run.seconds) for run in runs)))
    if not shared:
        raise UserError(
            f"mesh: the runs of {runs[0].block} have no width in common, and a pair is trained on "
            "equal meshes; choose a scale.batch that divides alike for all"
        )
    return shared


def _cheapest(seconds: np.ndarray, deadline: float, price: np.ndarray) -> np.ndarray:
    """By block, the position of the cheapest width that ends in time, or of the fastest."""
    allowed = np.where(seconds <= deadline, price, np.inf)
    return np.where(np.isfinite(allowed).any(axis=1), allowed.argmin(axis=1), seconds.argmin(axis=1))


def _filled_evenly(prices: np.ndarray, ends: np.ndarray, deadline: float, capacity: np.ndarray) -> list[int]:
    """A partition for each block, the dearest first: of those where it ends in time the emptiest.
    `prices` and `ends` are [partitions, blocks]; a block never goes where its end is infinite."""
    filled, kinds = np.zeros(len(capacity)), np.zeros(prices.shape[1], dtype=int)
    for block in np.argsort(-prices.min(axis=0), kind="stable"):
        late = np.where(np.isfinite(ends[:, block]), ends[:, block] > deadline, 2)
        share = (filled + prices[:, block]) / capacity
        kinds[block] = np.lexsort((share, late))[0]
        filled[kinds[block]] += prices[kinds[block], block]
    return kinds.tolist()
