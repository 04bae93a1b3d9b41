"""Interval: a value with its lower and upper end."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Interval:
    """A value and the two ends of its interval, all in one unit."""

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> Self:
        """Return the value and both ends times `factor`, for example to change the unit."""
        value, low, high = self.value * factor, self.low * factor, self.high * factor
        return dataclasses.replace(self, value=value, low=low, high=high)

    def contains(self, value: float) -> bool:
        """Return whether `value` lies in the interval, ends included."""
        return self.low <= value <= self.high
