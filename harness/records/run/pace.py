"""Pace of training since the first step was seen, and the time left at that pace."""

from __future__ import annotations

from dataclasses import dataclass

MIN_SECONDS, MIN_SHARE, LONG_SECONDS = 5.0, 0.05, 60.0
"""A pace is known after MIN_SECONDS if it covers MIN_SHARE of the work, and after LONG_SECONDS in any case.
Judged by its first steps, a sweep of minutes seems to take hours."""


@dataclass(frozen=True)
class Pace:
    """Work that was done in a time, as part of a whole. Its unit is that of the caller, such as FLOPs."""

    done: float
    seconds: float
    """Wall seconds since the first step, without the start of the first workers."""
    whole: float
    """Work that was left when the clock began."""

    @property
    def is_known(self) -> bool:
        """True if the pace covers enough time and work to predict the rest."""
        if self.done <= 0 or self.seconds < MIN_SECONDS:
            return False
        return self.seconds >= LONG_SECONDS or self.done >= MIN_SHARE * self.whole

    def seconds_for(self, left: float) -> float | None:
        """Return the seconds that the work `left` takes at this pace; None if the pace is not known yet."""
        return left * self.seconds / self.done if self.is_known else None
