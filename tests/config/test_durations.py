"""Durations in steps, from shares, steps or tokens: each given once, and the same either way."""

from __future__ import annotations

import copy

import pytest

from harness.config.compose import compose
from harness.config.recipes.durations import check_durations, evaluation_steps, save_steps, warmup_steps
from harness.config.schema.run import Config
from harness.config.value_checks import check_values
from harness.core.errors import UserError

RUN = compose(["scale.tokens=102400", "scale.batch=8"])
"""100 steps of 1,024 tokens."""


def run_with(**values: float | None) -> Config:
    """The run with other values; `node__key` names one."""
    config = copy.deepcopy(RUN)
    for key, value in values.items():
        node, name = key.split("__")
        setattr(getattr(config, node), name, value)
    return config


def test_shares_and_tokens_give_the_same_steps():
    shares = run_with(schedule__warmup=0.2, evaluation__points=4, checkpoint__every=30)
    tokens = run_with(
        schedule__warmup=None, schedule__warmup_tokens=20_480,
        evaluation__points=None, evaluation__every_tokens=25_600,
        checkpoint__every=None, checkpoint__every_tokens=30_720,
    )  # fmt: skip
    for config in (shares, tokens):
        check_durations(config)
        assert warmup_steps(config) == 20
        assert evaluation_steps(config) == [25, 50, 75, 100]
        assert save_steps(config) == [30, 60, 90]


def test_an_interval_between_steps_ends_at_the_next_step_and_one_below_a_step_at_every_step():
    config = run_with(evaluation__points=None, evaluation__every_tokens=40_000)
    assert evaluation_steps(config) == [40, 79, 100]
    each = run_with(checkpoint__every=None, checkpoint__every_tokens=100)
    assert save_steps(each) == [*range(1, 100)]
    long = run_with(evaluation__points=None, evaluation__every_tokens=10**9)
    assert evaluation_steps(long) == [100]


def test_an_interval_in_minutes_plans_no_step():
    assert save_steps(run_with(checkpoint__every=None, checkpoint__every_minutes=30)) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"schedule__warmup_tokens": 9}, "schedule.warmup=0.05 and schedule.warmup_tokens=9: one duration"),
        ({"evaluation__every_tokens": 9}, "evaluation.points=8 and evaluation.every_tokens=9: one duration"),
        ({"checkpoint__every_minutes": 9}, "checkpoint.every=100 and checkpoint.every_minutes=9: one"),
        ({"checkpoint__every": None}, "checkpoint.every_minutes are null: .* Set one of them"),
        (
            {"checkpoint__every": None, "checkpoint__every_minutes": 0.0},
            "checkpoint.every_minutes=0.0: out of range",
        ),
    ],
)
def test_two_units_or_none_are_refused_in_one_sentence(values, message):
    with pytest.raises(UserError, match=message):
        check_values(run_with(**values))


def test_the_other_unit_of_a_size_is_refused_on_the_command_line():
    message = "checkpoint.every=5 and checkpoint.every_minutes=30.0: .* Set one of the keys to null"
    with pytest.raises(UserError, match=message):
        compose(["size=124m", "checkpoint.every=5"])
