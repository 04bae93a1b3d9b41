"""Segments of a run (the run itself, its cooldown branches) and the learning rate at each step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.config.recipes.durations import warmup_steps
from harness.config.schema.run import Config, ScheduleConfig, num_steps
from harness.core.errors import UserError, did_you_mean

SHAPES = ("wsd", "cosine", "constant")


@dataclass(frozen=True)
class Segment:
    """Steps `first` to `last` of a run whose schedule ends at `last`. A branch starts at its fork."""

    first: int
    last: int
    warmup: int
    cooldown: int
    share: float = 1.0
    """Share of the token budget at which the segment ends; below 1 for a branch."""


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
        segments.append(Segment(fork, last, main.warmup, cooldown, share))
    return segments


def check_schedule(schedule: ScheduleConfig) -> None:
    """Raise UserError for an unknown schedule, or for shares that exceed one run."""
    if schedule.name not in SHAPES:
        hint = did_you_mean(schedule.name, SHAPES)
        raise UserError(f"schedule.name={schedule.name}: no such schedule; {hint}")
    if schedule.branches and schedule.name != "wsd":
        raise UserError(
            f"schedule.branches={list(schedule.branches)} needs a stable phase, which only schedule=wsd has."
        )
    if schedule.warmup is not None and schedule.warmup + schedule.cooldown > 1:
        raise UserError(
            f"schedule.warmup={schedule.warmup} and schedule.cooldown={schedule.cooldown} are shares of the "
            f"run and must not exceed 1 together"
        )


def learning_rate(schedule: ScheduleConfig, segment: Segment, step: int) -> float:
    """Return the learning rate of the update from `step` to `step + 1`, as a share of the peak. It is an
    argument of the compiled step, not a constant in it, so runs of every length share one program."""
    if step < segment.warmup:
        return (step + 1) / segment.warmup
    if schedule.name == "cosine":
        progress = (step - segment.warmup) / max(1, segment.last - segment.warmup)
        return schedule.floor + (1 - schedule.floor) * 0.5 * (1 + math.cos(math.pi * progress))
    remaining = segment.last - step
    if schedule.name == "wsd" and remaining <= segment.cooldown:
        return schedule.floor + (1 - schedule.floor) * remaining / (segment.cooldown + 1)
    return 1.0


def _cooldown_steps(schedule: ScheduleConfig, steps: int) -> int:
    return max(1, round(schedule.cooldown * steps)) if schedule.name == "wsd" and schedule.cooldown else 0
