"""Registry of schedules, and what a schedule is told: the place of a step in its run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from harness.config.socket_registry import Configured, NoOptions, Registry


class Decay(Enum):
    """Part of a run in which a schedule falls to the value of its end."""

    cooldown = "cooldown"
    """The last `schedule.cooldown` of its steps. Before them a longer run would be the same, so that cooldown
    branches can leave it."""
    whole = "whole"
    """All steps, so that a shorter run differs from the first step on."""
    never = "never"
    """None: the run has no decayed end, and is not compared."""


@dataclass(frozen=True)
class SchedulePlace:
    """Place of a step in its run. The update goes from `step` to `step + 1`."""

    step: int
    first: int
    """First step after the warm-up, which precedes every schedule of the learning rate."""
    last: int
    """Number of steps of the run, or at the end of its cooldown branch."""
    cooldown: int
    """Number of steps in `schedule.cooldown`; 0 for a schedule without a cooldown."""
    progress: float
    """Share of the run's updates that are done, from 0 to below 1. In a cooldown branch it goes on from that
    of the run at the fork, and reaches 1 at the end of the branch."""
    floor: float = 0.0
    """`schedule.floor`: final value as a share of the largest."""
    rate: float = 1.0
    """Learning rate of this step as a share of its peak, for schedules of other numbers."""

    @property
    def cooldown_progress(self) -> float:
        """Share of the cooldown at this step: 0 before it, and above 0 to below 1 in it."""
        return max(0.0, (self.cooldown + 1 - (self.last - self.step)) / (self.cooldown + 1))


Shape = Callable[[SchedulePlace, Any], float]
"""Factor of a number at a place of the run."""
ShapeT = TypeVar("ShapeT", bound=Shape)


@dataclass(frozen=True)
class RegisteredSchedule:
    """Registered schedule."""

    name: str
    options: type
    implementation: Shape
    decays: Decay = Decay.whole
    """Part of the run in which it falls, as the learning rate."""


SCHEDULES: Registry[RegisteredSchedule] = Registry("schedule", "schedule")


def register_schedule(
    name: str, options: type = NoOptions, *, decays: str = Decay.whole.value
) -> Callable[[ShapeT], ShapeT]:
    """Return the decorator that registers a function of (`SchedulePlace`, options) under `name`.

    It returns a factor: of the peak learning rate as `schedule.name`, of another number of the config in
    `schedule.values`. `decays` says where the learning rate falls: "cooldown", "whole" or "never".
    """

    def register(shape: ShapeT) -> ShapeT:
        SCHEDULES.add(RegisteredSchedule(name, options, shape, Decay(decays)))
        return shape

    return register


def factor(schedule: Configured[RegisteredSchedule], place: SchedulePlace) -> float:
    """Return the factor of a configured schedule at a place."""
    return float(schedule.entry.implementation(place, schedule.options))
