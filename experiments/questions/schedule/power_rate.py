"""Learning rate by a power of the step, with a linear cooldown: peak (t / warm-up)^-.51 (1 - s)."""

from dataclasses import dataclass

from harness.extend import SchedulePlace, register_schedule


@dataclass(frozen=True)
class PowerRateOptions:
    """Options of `power_rate`."""

    exponent: float = -0.51


@register_schedule("power_rate", PowerRateOptions, decays="cooldown")
def power_rate(place: SchedulePlace, options: PowerRateOptions) -> float:
    """Return the power of the steps since the start, in units of the warm-up."""
    warmup = max(1, place.first)
    return ((place.step + 1) / (warmup + 1)) ** options.exponent * (1 - place.cooldown_progress)
