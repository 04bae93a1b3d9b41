"""Schedules that ship: wsd, cosine and constant of the learning rate, and shapes for any number."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from harness.core.errors import UserError
from harness.training.schedules.schedule_registry import SchedulePlace, register_schedule


@register_schedule("constant", decays="never")
def constant(place: SchedulePlace, options: object) -> float:
    """Return 1."""
    return 1.0


@register_schedule("wsd", decays="cooldown")
def wsd(place: SchedulePlace, options: object) -> float:
    """Return 1 up to the cooldown, in which it falls linearly to the floor."""
    remaining = place.last - place.step
    if remaining > place.cooldown:
        return 1.0
    return place.floor + (1 - place.floor) * remaining / (place.cooldown + 1)


@register_schedule("cosine")
def cosine(place: SchedulePlace, options: object) -> float:
    """Return half a cosine from 1 to the floor."""
    progress = (place.step - place.first) / max(1, place.last - place.first)
    return place.floor + (1 - place.floor) * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class LinearOptions:
    """Options of `linear`."""

    start: float = 1.0
    end: float = 0.0


@register_schedule("linear", LinearOptions)
def linear(place: SchedulePlace, options: LinearOptions) -> float:
    """Return the straight line from `start` to `end` over the run."""
    return options.start + (options.end - options.start) * place.progress


@dataclass(frozen=True)
class PiecewiseOptions:
    """Options of `piecewise`."""

    points: tuple[tuple[float, ...], ...]
    """Pairs of progress and factor, in rising order of progress."""

    def __post_init__(self) -> None:
        """Raise UserError for points that are no pairs, or in no order."""
        are_pairs = bool(self.points) and all(len(point) == 2 for point in self.points)
        if not are_pairs or any(a[0] > b[0] for a, b in itertools.pairwise(self.points)):
            raise UserError(
                f"schedule points={[list(point) for point in self.points]}: give pairs [progress, factor] in "
                "rising order of progress, such as [[0, 1], [0.6, 1], [1, 0]]."
            )


@register_schedule("piecewise", PiecewiseOptions)
def piecewise(place: SchedulePlace, options: PiecewiseOptions) -> float:
    """Return the straight lines through the points; before the first and after the last it is level."""
    start, factor = options.points[0]
    if place.progress <= start:
        return factor
    for (left, low), (right, high) in itertools.pairwise(options.points):
        if place.progress < right:
            return low + (high - low) * (place.progress - left) / (right - left)
    return options.points[-1][1]


@dataclass(frozen=True)
class RatePowerOptions:
    """Options of `rate_power`."""

    power: float = 1.0


@register_schedule("rate_power", RatePowerOptions)
def rate_power(place: SchedulePlace, options: RatePowerOptions) -> float:
    """Return a power of the learning rate's share of its peak."""
    return place.rate**options.power
