"""Inputs of a step beside the state and the batch: the learning rate, and what else changes by step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from harness.config.schema.run import Config
from harness.models.step_clock import StepClock
from harness.training.schedule import Segment, learning_rate, values_at


class StepInputs(NamedTuple):
    """Scalars of one update. They are arguments of the compiled step, so runs of every length share it."""

    learning_rate: Any
    """Learning rate of this update."""
    clock: StepClock | None = None
    """Place of the step; None if nothing in the run asks for it."""
    values: dict[str, Any] | None = None
    """Other numbers of the config, by key: those that change over the run (`schedule.values`), and those that
    do not but are arguments all the same (`schedules.values.constant_values`)."""

    def with_values(self, values: Mapping[str, Any]) -> StepInputs:
        """Return the inputs with these numbers too."""
        return self._replace(values={**(self.values or {}), **values} or None)


def step_inputs(config: Config, segment: Segment, step: int, *, clock: bool) -> StepInputs:
    """Return the inputs of the update from `step` to `step + 1`; `clock`: whether the run asks for its."""
    rate = config.optimizer.learning_rate * learning_rate(config.schedule, segment, step)
    values = {key: np.float32(value) for key, value in values_at(config, segment, step).items()} or None
    if not clock:
        return StepInputs(rate, values=values)
    progress = np.float32(segment.progress(step))
    place = StepClock(np.int32(step), progress, np.uint32(config.seed % 2**32), np.int32(0))
    return StepInputs(rate, place, values)


def resting_inputs(config: Config, *, clock: bool) -> StepInputs:
    """Return inputs of a first step whose learning rate is 0: for their types, and to time steps."""
    inputs = step_inputs(config, Segment(0, 1, 0, 0), 0, clock=clock)
    return inputs._replace(learning_rate=np.float32(0))
