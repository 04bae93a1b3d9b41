"""Search for the schedule that ends a sweep early: the width, devices and start of each run. Pure functions.

Runs are moldable: each may get any of the widths that its mesh allows, and keeps it. The variants of a block
get equal widths, side by side on one contiguous range in the given order, and start together. A machine is a
list of partitions, each with one kind of device. A block never spans two partitions, so that the slowest kind
never sets the pace of another.
"""

from __future__ import annotations

import itertools
import random
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.config.schema.engine import Schedule
from harness.core.errors import UserError
from harness.launcher.placement.list_scheduling import StartSlot, pack
from harness.launcher.placement.options import DevicePartition, PlacementChoice, PlacementOptions, RunTask

GOOD_ENOUGH = 1.005
"""Makespan over the ideal one at which the search ends."""
DEADLINES = (
    1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 1.1, 0.7, 0.3, 1.25, 0.85, 1.05, 0.6, 0.4, 1.5, 2.0, 4.0, 16.0,
)  # fmt: skip
"""Deadlines that are tried for the longest run, in units of the ideal makespan. A short one leaves no long
run for the end if runs scale well; a long one wastes no devices if they do not."""
MAX_BLOCKS_PLACED = 60_000
"""Blocks that are placed in total while deadlines are tried (a quarter of a second for 10,000)."""
MAX_BLOCKS_IMPROVED = 48
"""Largest number of blocks for which a schedule is also improved, block by block."""
STARTS, TRIALS = 12, 250
"""Number of best schedules that are improved, and of changes that are tried on each."""
MUTATE_AGAIN = 0.7
"""Probability of one more change before a schedule is tried: a single change often leads nowhere."""

PriorityList = tuple[PlacementChoice, ...]
"""A choice for each block; list scheduling prefers the earlier ones."""


@dataclass(frozen=True)
class Reservation:
    """The lane of one run and its time, in seconds from the start of the sweep."""

    task: str
    block: str
    kind: str
    first_device: int
    """First device, counted over the whole machine."""
    width: int
    start: float
    end: float


@dataclass(frozen=True)
class SweepSchedule:
    """Reservations of a sweep, in the order of its tasks."""

    reservations: tuple[Reservation, ...]
    devices: int
    ideal_makespan: float
    """Lower bound in seconds on the makespan (`PlacementOptions.ideal_makespan`)."""

    @cached_property
    def makespan(self) -> float:
        """Seconds from the first start to the last end."""
        return max(reservation.end for reservation in self.reservations)

    @cached_property
    def utilisation(self) -> float:
        """Share of devices x makespan that is reserved."""
        device_seconds = sum(r.width * (r.end - r.start) for r in self.reservations)
        return device_seconds / (self.devices * self.makespan)


def place_tasks(
    tasks: Sequence[RunTask], machine: Sequence[DevicePartition], schedule: Schedule
) -> SweepSchedule:
    """Place every task. Raises UserError if a block, or a static schedule, does not fit."""
    options = PlacementOptions(tasks, machine)
    choices = _static(options) if schedule is Schedule.static else _queue(options)
    reservations = sorted(_reservations(tasks, options, choices), key=lambda pair: pair[0])
    return SweepSchedule(
        tuple(reservation for _, reservation in reservations),
        sum(part.devices for part in machine),
        options.ideal_makespan,
    )


def _static(options: PlacementOptions) -> PriorityList:
    """Return the narrowest widths for the earliest deadline that all blocks can meet side by side."""
    deadlines = np.unique(np.concatenate([seconds[np.isfinite(seconds)] for seconds in options.seconds]))

    def fits(deadline: float) -> bool:
        return _fits(options, options.choose_by_deadline(deadline, Schedule.static), deadline)

    earliest = bisect_left(deadlines, True, key=fits)
    if earliest == len(deadlines):
        need, available = options.devices.min(axis=1).sum(), sum(part.devices for part in options.machine)
        raise UserError(
            f"engine.schedule=static: all {len(options.members)} blocks at once need {need:.0f} "
            f"{options.machine[0].kind} or more, but there are {available}. Choose engine.schedule=queue."
        )
    return tuple(options.choose_by_deadline(deadlines[earliest], Schedule.static))


def _fits(options: PlacementOptions, choices: Sequence[PlacementChoice], deadline: float) -> bool:
    used = np.zeros(len(options.machine))
    for block, partition, option in choices:
        used[partition] += options.devices[block, option]
        if options.seconds[partition][block, option] > deadline:
            return False
    return all(count <= part.devices for count, part in zip(used, options.machine, strict=True))


def _queue(options: PlacementOptions) -> PriorityList:
    """Search over deadlines: list scheduling at the widths that a common deadline asks for.

    After Turek, Wolf and Yu, "Approximate algorithms for scheduling parallelizable tasks" (SPAA 1992):
    fix the longest run's time, give each run the least device seconds that meet it, pack the rectangles.
    """
    candidates = sorted({*_until_good_enough(options, _candidates(options))})
    best = candidates[0]
    if len(options.members) > MAX_BLOCKS_IMPROVED or best[0] <= GOOD_ENOUGH * options.ideal_makespan:
        return best[1]
    return min(_improve(options, *candidate) for candidate in candidates[:STARTS])[1]


def _candidates(options: PlacementOptions) -> Iterator[PriorityList]:
    """Yield two lists for each deadline: the longest blocks first, and the widest first."""
    for share in DEADLINES:
        deadline = share * options.ideal_makespan
        choices = options.choose_by_deadline(deadline, Schedule.queue)
        for key in (_longest_first, _widest_first):
            yield tuple(sorted(choices, key=lambda choice: key(options, choice, deadline)))


def _longest_first(options: PlacementOptions, choice: PlacementChoice, _: float) -> tuple[float, ...]:
    block, partition, option = choice
    return (-options.seconds[partition][block, option], -options.devices[block, option])


def _widest_first(options: PlacementOptions, choice: PlacementChoice, deadline: float) -> tuple[float, ...]:
    """Return a sort key: blocks that miss the deadline first, then wide ones, before ranges break up."""
    seconds, need = _longest_first(options, choice, deadline)
    return (-1.0, seconds, need) if -seconds > deadline else (0.0, need, seconds)


def _until_good_enough(
    options: PlacementOptions, lists: Iterator[PriorityList]
) -> Iterator[tuple[float, PriorityList]]:
    """Yield lists with their makespans, up to one that is good enough or MAX_BLOCKS_PLACED."""
    for choices in itertools.islice(lists, max(4, MAX_BLOCKS_PLACED // len(options.members))):
        yield (makespan := _makespan(options, choices)), choices
        if makespan <= GOOD_ENOUGH * options.ideal_makespan:
            return


def _improve(options: PlacementOptions, makespan: float, choices: PriorityList) -> tuple[float, PriorityList]:
    """Change the width or turn of a few blocks at a time, and keep what ends no later. This is a (1+1)
    evolution with mutations of random strength, and the same random draws every time."""
    random_state = random.Random(0)
    for _ in range(TRIALS):
        mutant = _mutate(options, choices, random_state)
        while random_state.random() < MUTATE_AGAIN:
            mutant = _mutate(options, mutant, random_state)
        if (mutant_makespan := _makespan(options, mutant)) <= makespan:
            makespan, choices = mutant_makespan, mutant
        if makespan <= GOOD_ENOUGH * options.ideal_makespan:
            break
    return makespan, choices


def _mutate(options: PlacementOptions, choices: PriorityList, random_state: random.Random) -> PriorityList:
    turn = random_state.randrange(len(choices))
    choice, remaining = choices[turn], choices[:turn] + choices[turn + 1 :]
    alternatives = options.alternatives(choice)
    if alternatives and random_state.random() < 0.5:
        return (*choices[:turn], random_state.choice(alternatives), *choices[turn + 1 :])
    new_turn = random_state.randrange(len(choices))
    return (*remaining[:new_turn], choice, *remaining[new_turn:])


def _makespan(options: PlacementOptions, choices: PriorityList) -> float:
    return max(slot.start + max(options.job(choice).seconds) for choice, slot in _slots(options, choices))


def _slots(options: PlacementOptions, choices: PriorityList) -> Iterator[tuple[PlacementChoice, StartSlot]]:
    """Yield the slot of each choice; devices are counted within each partition."""
    for index, part in enumerate(options.machine):
        members = [choice for choice in choices if choice.partition == index]
        yield from zip(members, pack(part.devices, [options.job(c) for c in members]), strict=True)


def _reservations(
    tasks: Sequence[RunTask], options: PlacementOptions, choices: PriorityList
) -> Iterator[tuple[int, Reservation]]:
    """Yield the position and the reservation of each task."""
    offsets = np.cumsum([0, *(part.devices for part in options.machine)]).tolist()
    for choice, slot in _slots(options, choices):
        job, kind = options.job(choice), options.machine[choice.partition].kind
        first = offsets[choice.partition] + slot.first_device
        for index, seconds in zip(options.members[choice.block], job.seconds, strict=True):
            task, end = tasks[index], slot.start + seconds
            yield index, Reservation(task.name, task.block, kind, first, job.width, slot.start, end)
            first += job.width
