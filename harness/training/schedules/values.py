"""Numbers of the config that a step takes as arguments: those that change over a run (`schedule.values`), and
those that do not, so that runs which differ in them alone share a program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.config.schema.ranges import numbers
from harness.config.schema.run import Config
from harness.config.socket_registry import Configured
from harness.core.errors import UserError, did_you_mean
from harness.training.optimizers.optimizer_registry import OPTIMIZERS
from harness.training.schedules.schedule_registry import SCHEDULES, RegisteredSchedule

Z_LOSS = "loss.z_loss"
"""Key of the loss's number that may change."""
RATE = "optimizer.learning_rate"
"""Key of the number that follows `schedule.name`."""
COUNTS = ("optimizer.ns_steps",)
"""Numbers of the optimizer that decide the program, and so cannot change by step."""


@dataclass(frozen=True)
class ScheduledValue:
    """Number of the config with the schedule of its factor."""

    value: float
    schedule: Configured[RegisteredSchedule]


def scheduled_values(config: Config) -> dict[str, ScheduledValue]:
    """Return the numbers that change over a run, by key. Raises UserError for a key that is no such number,
    for a number of 0, and for a schedule that is not registered."""
    base = _numbers(config)
    return {key: _scheduled_value(key, node, base) for key, node in config.schedule.values.items()}


def _scheduled_value(key: str, node: object, base: Mapping[str, float]) -> ScheduledValue:
    where = f"schedule.values.{key}"
    if key == RATE:
        raise UserError(f"{where}: the learning rate follows schedule.name and schedule.options. Set those.")
    if key not in base:
        raise UserError(f"{where} is no number that can change by step: {did_you_mean(key, base)}")
    if not base[key]:
        raise UserError(f"{where}: {key} is 0, and so is every factor of it. Set {key} too.")
    return ScheduledValue(base[key], SCHEDULES.lookup_node(node, where))


def constant_values(config: Config) -> dict[str, float]:
    """Return the numbers that stay the same over a run and are arguments of its step, by key: those of an
    optimizer whose options are keys of the config, and of the loss. A number of 0 stays in the program, which
    is simpler without it; so do the numbers of other optimizers, which may ask what they are."""
    entry = OPTIMIZERS.entries.get(config.optimizer.name)
    fields = (*entry.flat_keys, "weight_decay", "clip_norm") if entry and entry.flat_keys else ()
    keys = {Z_LOSS, *(f"optimizer.{field}" for field in fields)} - config.schedule.values.keys()
    return {key: value for key, value in _numbers(config).items() if value and key in keys}


def _numbers(config: Config) -> dict[str, float]:
    """Return the numbers that may change by step."""
    optimizer = {key: value for key, _, value in numbers(config.optimizer, "optimizer", "optimizer")}
    usable = {key: value for key, value in optimizer.items() if key not in (RATE, *COUNTS)}
    return {**usable, Z_LOSS: config.loss.z_loss}
