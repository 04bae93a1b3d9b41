"""Segments of a run (the run itself, its cooldown branches) and the learning rate at each step."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from harness.config.recipes.durations import warmup_steps
from harness.config.schema.run import Config, ModuleConfig, ScheduleConfig, num_steps
from harness.config.socket_registry import Configured
from harness.core.errors import UserError
from harness.training.schedules.schedule_registry import (
    SCHEDULES,
    Decay,
    RegisteredSchedule,
    SchedulePlace,
    factor,
)
from harness.training.schedules.values import scheduled_values

CHECKED_STEPS = 64
"""Number of places at which a schedule is tried before the run."""


@dataclass(frozen=True)
class Segment:
    """Steps `first` to `last` of a run whose schedule ends at `last`. A branch starts at its fork."""

    first: int
    last: int
    warmup: int
    cooldown: int
    share: float = 1.0
    """Share of the token budget at which the segment ends; below 1 for a branch."""
    fork_progress: float = 0.0
    """Progress of the run at the first step; above 0 for a branch."""

    def progress(self, step: int) -> float:
        """Return the share of the updates that are done. A branch goes on from its run, and ends at 1."""
        share = (step - self.first) / (self.last - self.first)
        return self.fork_progress + (1 - self.fork_progress) * share


def main_segment(config: Config) -> Segment:
    """Return the segment of the run itself. Raises UserError for a bad schedule."""
    check_schedule(config.schedule)
    steps = num_steps(config)
    warmup, cooldown = warmup_steps(config), _cooldown_steps(config.schedule, steps)
    if config.schedule.warmup_tokens is not None and warmup + cooldown > steps:
        raise UserError(
            f"schedule.warmup_tokens={config.schedule.warmup_tokens} are {warmup} steps, and with a cooldown "
            f"of {cooldown} that is more than the {steps} steps of the run. Lower it, or raise scale.tokens."
        )
    return Segment(0, steps, warmup, cooldown)


def branch_segments(config: Config) -> list[Segment]:
    """Return the cooldown branches in order of their end. Raises UserError for a branch that does not fit.
    Warm-up is the parent's; from its fork on, a branch equals a run with that share of the tokens."""
    main, segments = main_segment(config), []
    for share in sorted(config.schedule.branches):
        last = round(share * main.last)
        cooldown = _cooldown_steps(config.schedule, last)
        fork = last - cooldown
        if not main.warmup <= fork < last <= main.last - main.cooldown:
            raise UserError(
                f"schedule.branches: a branch that ends at {share:g} of the tokens is outside the stable "
                f"phase of the run ({main.last} steps). Choose a share between warm-up and cooldown, or more "
                "tokens."
            )
        segments.append(Segment(fork, last, main.warmup, cooldown, share, main.progress(fork)))
    return segments


def check_schedule(schedule: ScheduleConfig) -> None:
    """Raise UserError for an unknown schedule, or for shares that exceed one run."""
    decays = find_schedule(schedule).entry.decays
    if schedule.branches and decays is not Decay.cooldown:
        raise UserError(
            f"schedule.branches={list(schedule.branches)} needs a stable phase, which schedule.name="
            f"{schedule.name} has not. Choose schedule=wsd or another that decays in a cooldown."
        )
    if schedule.warmup is not None and schedule.warmup + schedule.cooldown > 1:
        raise UserError(
            f"schedule.warmup={schedule.warmup} and schedule.cooldown={schedule.cooldown} are shares of the "
            f"run and must not exceed 1 together"
        )


def find_schedule(schedule: ScheduleConfig) -> Configured[RegisteredSchedule]:
    """Return the schedule of the learning rate. Raises UserError for an unknown name or a bad option."""
    return SCHEDULES.lookup(ModuleConfig(schedule.name, schedule.options))


def ends_decayed(schedule: ScheduleConfig) -> bool:
    """Return whether a run ends at a decayed learning rate. Only such a checkpoint is compared."""
    decays = find_schedule(schedule).entry.decays
    return decays is Decay.whole or (decays is Decay.cooldown and schedule.cooldown > 0)


def learning_rate(schedule: ScheduleConfig, segment: Segment, step: int) -> float:
    """Return the learning rate of the update from `step` to `step + 1`, as a share of the peak. It is an
    argument of the compiled step, not a constant in it, so runs of every length share one program."""
    if step < segment.warmup:
        return (step + 1) / segment.warmup
    return factor(find_schedule(schedule), _place(schedule, segment, step, segment.warmup))


def values_at(config: Config, segment: Segment, step: int) -> dict[str, float]:
    """Return the other numbers that change over the run, by key, at the update from `step` to `step + 1`.
    They have no warm-up. Raises UserError for a number that cannot change, or for an unknown schedule."""
    schedule = config.schedule
    if not schedule.values:
        return {}
    rate = learning_rate(schedule, segment, step)
    place = replace(_place(schedule, segment, step, 0), rate=rate)
    numbers = scheduled_values(config).items()
    return {key: item.value * factor(item.schedule, place) for key, item in numbers}


def check_course(config: Config) -> None:
    """Raise UserError for a learning rate or another number that is not finite at some step, and for a
    learning rate that does not fall although its schedule is registered as one that does."""
    schedule, segment = config.schedule, main_segment(config)
    steps = [*range(0, segment.last, -(-segment.last // CHECKED_STEPS)), segment.last - 1]
    rates = [learning_rate(schedule, segment, step) for step in steps]
    for step, rate in zip(steps, rates, strict=True):
        values = {f"schedule.name={schedule.name}: the factor of the learning rate": rate}
        values |= {f"schedule.values.{k}: its value": v for k, v in values_at(config, segment, step).items()}
        for text, value in values.items():
            if not 0 <= value < math.inf:
                raise UserError(f"{text} is {value} at step {step}. Give finite numbers from 0 up.")
    rates = [rate for step, rate in zip(steps, rates, strict=True) if step >= segment.warmup]
    if ends_decayed(schedule) and schedule.floor < 1 and len(rates) > 2 and rates[-1] >= max(rates):
        raise UserError(
            f"schedule.name={schedule.name} is registered as one that decays, but its last learning rate is "
            'its largest. Register it with decays="never", or let it fall.'
        )


def _place(schedule: ScheduleConfig, segment: Segment, step: int, first: int) -> SchedulePlace:
    cooldown, progress = segment.cooldown, segment.progress(step)
    return SchedulePlace(step, first, segment.last, cooldown, progress, schedule.floor)


def _cooldown_steps(schedule: ScheduleConfig, steps: int) -> int:
    falls = find_schedule(schedule).entry.decays is Decay.cooldown and schedule.cooldown
    return max(1, round(schedule.cooldown * steps)) if falls else 0
