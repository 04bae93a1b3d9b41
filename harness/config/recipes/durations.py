"""Durations of a run in steps: warm-up, evaluations and checkpoints, from shares, steps or tokens.

Each duration has one key per unit, and a config sets one of them; the others are null.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.config.schema.run import Config, num_steps
from harness.core.errors import UserError

UNITS = (
    ("schedule.warmup", "schedule.warmup_tokens"),
    ("evaluation.points", "evaluation.every_tokens"),
    ("checkpoint.every", "checkpoint.every_tokens", "checkpoint.every_minutes"),
)
"""Keys of each duration, of which a config sets one."""


def check_durations(config: Config) -> None:
    """Raise UserError for a duration that is given in two units, or in none."""
    for keys in UNITS:
        values = {key: _value(config, key) for key in keys}
        settings = [f"{key}={value}" for key, value in values.items() if value is not None]
        if len(settings) > 1:
            raise UserError(
                f"{' and '.join(settings)}: one duration in two units. Set one of the keys to null."
            )
        if not settings:
            raise UserError(f"{' and '.join(keys)} are null: the duration is not given. Set one of them.")


def warmup_steps(config: Config) -> int:
    """Return the number of steps with a rising learning rate."""
    schedule = config.schedule
    if schedule.warmup_tokens is not None:
        return round(schedule.warmup_tokens / tokens_per_step(config))
    assert schedule.warmup is not None, "check_durations"
    return round(schedule.warmup * num_steps(config))


def evaluation_steps(config: Config) -> list[int]:
    """Return the steps after which the run itself is evaluated, ascending; the last step is one of them."""
    last, points = num_steps(config), config.evaluation.points
    if config.evaluation.every_tokens is not None:
        steps = every_so_many_tokens(config, config.evaluation.every_tokens)
    else:
        assert points is not None, "check_durations"
        steps = [round(last * i / points) for i in range(1, points + 1)]
    return sorted({*steps, last})


def save_steps(config: Config) -> list[int]:
    """Return the steps after which the run is saved whatever the clock says, ascending, without the last."""
    last, checkpoint = num_steps(config), config.checkpoint
    if checkpoint.every_tokens is not None:
        return [step for step in every_so_many_tokens(config, checkpoint.every_tokens) if step < last]
    return [*range(checkpoint.every, last, checkpoint.every)] if checkpoint.every is not None else []


def every_so_many_tokens(config: Config, interval: int) -> Sequence[int]:
    """Return the first step at or after each multiple of an interval in tokens, within the run."""
    step_tokens, last = tokens_per_step(config), num_steps(config)
    count = last * step_tokens // interval
    return [*dict.fromkeys(-(-index * interval // step_tokens) for index in range(1, count + 1))]


def tokens_per_step(config: Config) -> int:
    """Return the tokens of one optimizer step."""
    return config.scale.batch * config.data.sequence_length


def _value(config: Config, key: str) -> float | None:
    node, name = key.split(".")
    return getattr(getattr(config, node), name)
