"""Which devices each run trains on, how many and when, so that the whole sweep ends early. Pure functions.

Runs are moldable: each may be given any of the widths that its mesh allows, and keeps it. The variants of a
block get equal widths, side by side on one contiguous range in the order given, and start together. A
machine is a row of partitions of one kind of device each; a block never spans two, so that the slowest
kind never sets another's pace.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.config.schema.engine import Schedule
from harness.core.errors import UserError
from harness.launcher.placement.list_scheduling import StartSlot, pack
from harness.launcher.placement.options import DevicePartition, PlacementChoice, PlacementOptions, RunTask

GOOD_ENOUGH = 1.005
"""Of the ideal makespan: nothing better is looked for."""
DEADLINES = (
    1.0,
    0.5,
    0.2,
    0.1,
    0.05,
    0.02,
    0.01,
    1.1,
    0.7,
    0.3,
    1.25,
    0.85,
    1.05,
    0.6,
    0.4,
    1.5,
    2.0,
    4.0,
    16.0,
)
"""That are tried for the longest run, in units of the ideal makespan. A short one leaves no long run for the
end where runs scale well, a long one wastes no devices where they do not."""
MAX_BLOCKS_PLACED = 60_000
"""Blocks that are placed in all while deadlines are tried (a quarter of a second for 10,000)."""
MAX_BLOCKS_IMPROVED = 48
"""Blocks up to which a plan is also improved, block by block."""
STARTS, TRIALS = 12, 250
"""Plans that are improved, the best ones, and changes to each that are tried."""
MUTATE_AGAIN = 0.7
"""Chance of one more change before a plan is tried: one at a time often leads nowhere."""


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
    """Where everything goes, in the order of the tasks."""

    reservations: tuple[Reservation, ...]
    devices: int
    ideal_makespan: float
    """Seconds below which no plan ends (moldable.Options.ideal)."""

    @cached_property
    def makespan(self) -> float:
        """Seconds from the first start to the last end."""
        return max(booking.end for booking in self.reservations)

    @cached_property
    def utilisation(self) -> float:
        """Share of devices x makespan that is booked."""
        booked = sum(booking.width * (booking.end - booking.start) for booking in self.reservations)
        return booked / (self.devices * self.makespan)


def place_tasks(
    tasks: Sequence[RunTask], machine: Sequence[DevicePartition], schedule: Schedule
) -> SweepSchedule:
    """Place every task. Raises UserError for what does not fit."""
    options = PlacementOptions(tasks, machine)
    line = _static(options) if schedule is Schedule.static else _queue(options)
    bookings = sorted(_bookings(tasks, options, line), key=lambda each: each[0])
    return SweepSchedule(
        tuple(booking for _, booking in bookings),
        sum(part.devices for part in machine),
        options.ideal_makespan,
    )


Line = tuple[PlacementChoice, ...]
"""A choice for each block, those that start first preferred in front."""


def _static(options: PlacementOptions) -> Line:
    """The narrowest widths of the earliest common deadline that all blocks can meet side by side."""
    deadlines = np.unique(np.concatenate([each[np.isfinite(each)] for each in options.seconds]))
    low, high = 0, len(deadlines)
    while low < high:
        middle = (low + high) // 2
        if _fits(options, options.choose_by_deadline(deadlines[middle], Schedule.static), deadlines[middle]):
            high = middle
        else:
            low = middle + 1
    if low == len(deadlines):
        needed, there = options.devices.min(axis=1).sum(), sum(part.devices for part in options.machine)
        raise UserError(
            f"engine.schedule=static: all {len(options.members)} blocks at once need {needed:.0f} "
            f"{options.machine[0].kind} or more, there are {there}; choose engine.schedule=queue"
        )
    return tuple(options.choose_by_deadline(deadlines[low], Schedule.static))


def _fits(options: PlacementOptions, choices: Sequence[PlacementChoice], deadline: float) -> bool:
    held = np.zeros(len(options.machine))
    for block, partition, option in choices:
        held[partition] += options.devices[block, option]
        if options.seconds[partition][block, option] > deadline:
            return False
    return all(used <= part.devices for used, part in zip(held, options.machine, strict=True))


def _queue(options: PlacementOptions) -> Line:
    """List scheduling at the widths that a common deadline asks for, over a search of the deadline.

    After Turek, Wolf and Yu, "Approximate algorithms for scheduling parallelizable tasks" (SPAA 1992):
    fix the longest run's time, give each run the least device seconds that meet it, pack the rectangles.
    """
    lines = sorted({*_until_good(options, _candidates(options))})
    if len(options.members) > MAX_BLOCKS_IMPROVED or lines[0][0] <= GOOD_ENOUGH * options.ideal_makespan:
        return lines[0][1]
    return min(_improved(options, *start) for start in lines[:STARTS])[1]


def _candidates(options: PlacementOptions) -> Iterator[Line]:
    """Lines by deadline: the longest first, and the widest first."""
    for share in DEADLINES:
        deadline = share * options.ideal_makespan
        choices = options.choose_by_deadline(deadline, Schedule.queue)
        for key in (_longest_first, _widest_first):
            yield tuple(sorted(choices, key=lambda choice: key(options, choice, deadline)))


def _longest_first(options: PlacementOptions, choice: PlacementChoice, _: float) -> tuple[float, ...]:
    block, partition, option = choice
    return (-options.seconds[partition][block, option], -options.devices[block, option])


def _widest_first(options: PlacementOptions, choice: PlacementChoice, deadline: float) -> tuple[float, ...]:
    """Wide room that is once broken up comes back late. What cannot keep the deadline starts before all."""
    seconds, need = _longest_first(options, choice, deadline)
    return (-1.0, seconds, need) if -seconds > deadline else (0.0, need, seconds)


def _until_good(options: PlacementOptions, lines: Iterator[Line]) -> Iterator[tuple[float, Line]]:
    """Lines with their lengths, up to one that is good, or as many as there is patience for."""
    for line in itertools.islice(lines, max(4, MAX_BLOCKS_PLACED // len(options.members))):
        yield (length := _length(options, line)), line
        if length <= GOOD_ENOUGH * options.ideal_makespan:
            return


def _improved(options: PlacementOptions, length: float, line: Line) -> tuple[float, Line]:
    """Another width or turn for a few blocks at a time, kept where the whole ends no later: an evolution
    of one by mutations of random strength, with the same draws every time."""
    draw = random.Random(0)
    for _ in range(TRIALS):
        mutant = _neighbour(options, line, draw)
        while draw.random() < MUTATE_AGAIN:
            mutant = _neighbour(options, mutant, draw)
        if (tried := _length(options, mutant)) <= length:
            length, line = tried, mutant
        if length <= GOOD_ENOUGH * options.ideal_makespan:
            break
    return length, line


def _neighbour(options: PlacementOptions, line: Line, draw: random.Random) -> Line:
    turn = draw.randrange(len(line))
    choice, rest = line[turn], line[:turn] + line[turn + 1 :]
    others = options.alternatives(choice)
    if others and draw.random() < 0.5:
        return (*line[:turn], draw.choice(others), *line[turn + 1 :])
    other_turn = draw.randrange(len(line))
    return (*rest[:other_turn], choice, *rest[other_turn:])


def _length(options: PlacementOptions, line: Line) -> float:
    """Makespan of a line, in seconds."""
    return max(spot.start + max(options.job(choice).seconds) for choice, spot in _spots(options, line))


def _spots(options: PlacementOptions, line: Line) -> Iterator[tuple[PlacementChoice, StartSlot]]:
    """Devices are counted within each partition."""
    for index, part in enumerate(options.machine):
        here = [choice for choice in line if choice.partition == index]
        yield from zip(here, pack(part.devices, [options.job(each) for each in here]), strict=True)


def _bookings(
    tasks: Sequence[RunTask], options: PlacementOptions, line: Line
) -> Iterator[tuple[int, Reservation]]:
    """Each task's position and lane."""
    offsets = np.cumsum([0, *(part.devices for part in options.machine)]).tolist()
    for choice, spot in _spots(options, line):
        job, kind = options.job(choice), options.machine[choice.partition].kind
        for lane, (index, seconds) in enumerate(zip(options.members[choice.block], job.seconds, strict=True)):
            first = offsets[choice.partition] + spot.first_device + lane * job.width
            task = tasks[index]
            yield (
                index,
                Reservation(task.name, task.block, kind, first, job.width, spot.start, spot.start + seconds),
            )
