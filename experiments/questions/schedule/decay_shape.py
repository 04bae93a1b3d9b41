"""Shapes of the cooldown, s = 0 to 1: 1 - sqrt(s), 1 - s^2, end^s, a cosine, and 2 (1 - s) - the cosine."""

import math
from dataclasses import dataclass
from typing import Literal

from harness.extend import SchedulePlace, register_schedule

SHAPES = {
    "root": lambda s, end: 1 - math.sqrt(s),
    "square": lambda s, end: 1 - s**2,
    "exponential": lambda s, end: end**s,
    "cosine": lambda s, end: (1 + math.cos(math.pi * s)) / 2,
    "mirror_cosine": lambda s, end: 2 * (1 - s) - (1 + math.cos(math.pi * s)) / 2,
}


@dataclass(frozen=True)
class DecayShapeOptions:
    """Options of `decay_shape`."""

    shape: Literal["root", "square", "exponential", "cosine", "mirror_cosine"] = "root"
    end: float = 0.01
    """Last value of the exponential."""


@register_schedule("decay_shape", DecayShapeOptions, decays="cooldown")
def decay_shape(place: SchedulePlace, options: DecayShapeOptions) -> float:
    """Return 1 up to the cooldown, and then the shape down to the floor."""
    shape = SHAPES[options.shape](place.cooldown_progress, options.end)
    return place.floor + (1 - place.floor) * shape
