"""Schedules of one's own, and numbers of the config that change over a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from harness.config.compose import compose
from harness.core.errors import UserError
from harness.models import build
from harness.models.text import cross_entropy
from harness.models.text.cross_entropy import LossTerms, loss_in_pieces
from harness.parallel.sharding.mesh import abstract_mesh
from harness.training.programs.lowerings import lowered_program
from harness.training.programs.program_specs import ProgramSpecs
from harness.training.schedule import (
    branch_segments,
    check_course,
    ends_decayed,
    learning_rate,
    main_segment,
    values_at,
)
from harness.training.schedules.schedule_registry import SCHEDULES, SchedulePlace, register_schedule
from harness.training.schedules.values import constant_values
from harness.training.step import TrainState
from harness.training.step_inputs import StepInputs, step_inputs
from tests.training.runs import TINY

STEPS = ["scale.tokens=2048000", "scale.batch=16"]
"""1000 steps."""


@pytest.fixture
def own_schedules():
    """Register schedules of a user's own for one test."""

    @dataclass(frozen=True)
    class PowerOptions:
        exponent: float = -0.5

    @register_schedule("own_power", PowerOptions, decays="cooldown")
    def power(place: SchedulePlace, options: PowerOptions) -> float:
        """Return a power of the step, with a linear cooldown."""
        step = max(place.step, 1)
        return (step / max(place.first, 1)) ** options.exponent * (1 - place.cooldown_progress)

    @register_schedule("own_growing")
    def growing(place: SchedulePlace, options: object) -> float:
        return 1 + place.step

    @register_schedule("own_broken", decays="never")
    def broken(place: SchedulePlace, options: object) -> float:
        return math.nan if place.progress > 0.5 else 1.0

    yield
    for name in ("own_power", "own_growing", "own_broken"):
        SCHEDULES.entries.pop(name)


def first_rates(schedule, segment, step):
    """Learning rates as they were before schedules had a registry."""
    if step < segment.warmup:
        return (step + 1) / segment.warmup
    if schedule.name == "cosine":
        progress = (step - segment.warmup) / max(1, segment.last - segment.warmup)
        return schedule.floor + (1 - schedule.floor) * 0.5 * (1 + math.cos(math.pi * progress))
    remaining = segment.last - step
    if schedule.name == "wsd" and remaining <= segment.cooldown:
        return schedule.floor + (1 - schedule.floor) * remaining / (segment.cooldown + 1)
    return 1.0


@pytest.mark.parametrize("name", ["wsd", "cosine", "constant"])
def test_shipped_schedules_keep_their_bits(name):
    config = compose([f"schedule={name}", "schedule.floor=0.03", "schedule.warmup=0.07", *STEPS])
    for segment in (main_segment(config), *branch_segments(config)):
        for step in range(segment.first, segment.last):
            expected = first_rates(config.schedule, segment, step)
            assert learning_rate(config.schedule, segment, step) == expected


def test_a_schedule_of_ones_own_has_warm_up_cooldown_and_branches(own_schedules):
    config = compose(["schedule.name=own_power", "+schedule.options.exponent=-1", *STEPS])
    (branch,) = branch_segments(config)
    segment = main_segment(config)
    assert learning_rate(config.schedule, segment, 24) == 0.5
    assert learning_rate(config.schedule, segment, 200) == 0.25
    assert learning_rate(config.schedule, branch, branch.first) == 50 / branch.first * (
        1 - 1 / (branch.cooldown + 1)
    )
    assert ends_decayed(config.schedule)
    check_course(config)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["schedule.name=own_powers"], ["schedule.name=own_powers", "own_power"]),
        (
            ["schedule.name=own_power", "+schedule.options.exponant=1"],
            ["schedule.options.exponant", "exponent"],
        ),
        (["schedule.name=own_growing", "schedule.branches=[]"], ["own_growing", "decays", "never"]),
        (["schedule.name=own_growing"], ["schedule.branches", "wsd"]),
        (["schedule.name=own_broken", "schedule.branches=[]"], ["own_broken", "nan at step", "finite"]),
        (
            ["+schedule.values={optimizer.weight_decy: {name: linear}}"],
            ["did you mean 'optimizer.weight_decay'"],
        ),
        (["+schedule.values={optimizer.ns_steps: {name: linear}}"], ["optimizer.ns_steps", "no number"]),
        (["+schedule.values={optimizer.name: {name: linear}}"], ["optimizer.name", "no number"]),
        (["+schedule.values={loss.z_loss: {name: linear}}"], ["loss.z_loss is 0"]),
        (["+schedule.values={optimizer.learning_rate: {name: linear}}"], ["schedule.name"]),
        (["+schedule.values={optimizer.b1: {name: lineer}}"], ["schedule.values.optimizer.b1", "'linear'"]),
        (["+schedule.values={optimizer.b1: 0.5}"], ["schedule.values.optimizer.b1", "{name: NAME"]),
        (
            ["+schedule.values={optimizer.b1: {name: piecewise, options: {points: [[1, 1], [0, 0]]}}}"],
            ["rising order"],
        ),
        (
            ["+schedule.values={optimizer.b1: {name: linear, options: {end: -1}}}"],
            ["optimizer.b1", "at step"],
        ),
    ],
)
def test_each_mistake_gets_one_sentence(own_schedules, overrides, words):
    def check():
        config = compose([*overrides, *STEPS])
        branch_segments(config)
        check_course(config)

    with pytest.raises(UserError) as error:
        check()
    assert all(word in str(error.value) for word in words), error.value
    assert "\n" not in str(error.value)


def values_config(values, *overrides):
    config = compose([*STEPS, *overrides])
    config.schedule.values = values
    return config


def test_shapes_agree_with_their_formulas():
    points = [[0.0, 0.2], [0.3, 1.0], [0.9, 0.5]]
    config = values_config(
        {
            "optimizer.weight_decay": {"name": "linear", "options": {"start": 1.0, "end": 0.25}},
            "optimizer.b1": {"name": "piecewise", "options": {"points": points}},
            "optimizer.b2": {"name": "rate_power", "options": {"power": 2.0}},
        }
    )
    segment = main_segment(config)
    for step in range(0, 1000, 37):
        values, progress = values_at(config, segment, step), step / 1000
        rate = learning_rate(config.schedule, segment, step)
        assert values["optimizer.weight_decay"] == pytest.approx(0.1 * (1 - 0.75 * progress))
        assert values["optimizer.b1"] == pytest.approx(0.9 * np.interp(progress, *np.transpose(points)))
        assert values["optimizer.b2"] == pytest.approx(0.95 * rate**2)


def test_a_branch_goes_on_from_its_run_and_ends_where_the_run_ends():
    config = values_config({"optimizer.weight_decay": {"name": "linear"}})
    (branch,) = branch_segments(config)
    main = main_segment(config)
    at = [values_at(config, segment, branch.first)["optimizer.weight_decay"] for segment in (main, branch)]
    assert at[0] == at[1]
    assert branch.progress(branch.last) == main.progress(main.last) == 1
    falls = np.diff([branch.progress(step) for step in range(branch.first, branch.last + 1)])
    np.testing.assert_allclose(falls, (1 - branch.first / 1000) / branch.cooldown)


def test_inputs_of_a_step_hold_float32_scalars_and_nothing_without_values():
    config = values_config({"optimizer.weight_decay": {"name": "linear"}})
    inputs = step_inputs(config, main_segment(config), 500, clock=False)
    assert inputs.values is not None
    assert inputs.values["optimizer.weight_decay"].dtype == np.float32
    assert step_inputs(compose(STEPS), main_segment(config), 0, clock=False).values is None


def test_a_z_loss_in_pieces_may_change_over_the_run(monkeypatch):
    monkeypatch.setattr(cross_entropy, "loss_piece_tokens", lambda vocabulary: 4)
    rng = np.random.default_rng(0)
    x_BTD, table_VD = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((2, 8, 4), (16, 4)))
    target_BT = jnp.asarray(rng.integers(0, 16, (2, 8)))

    def loss(weight, x_BTD, table_VD):
        return loss_in_pieces(x_BTD, table_VD, target_BT, LossTerms(weight)).mean

    gradient = jax.value_and_grad(loss, argnums=(1, 2))
    fixed = gradient(0.3, x_BTD, table_VD)
    moving = jax.jit(gradient)(jnp.float32(0.3), x_BTD, table_VD)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), fixed, moving)


@pytest.mark.parametrize("key", ["optimizer.weight_decay", "loss.z_loss"])
def test_a_number_that_moves_is_the_number_of_that_step(key):
    rng = np.random.default_rng(0)
    tokens_MBT1 = jnp.asarray(rng.integers(0, 257, (1, 4, 33), dtype=np.int32))

    def make(base):
        config = compose([*TINY, f"{key}={base}"])
        return ProgramSpecs(config, build(config, 257), abstract_mesh(config.mesh))

    def after_step(specs, step, values):
        params = jax.tree.map(jnp.asarray, specs.model.init(0))
        state = TrainState(params, specs.optimizer.init(params))
        return step(state, tokens_MBT1, StepInputs(jnp.float32(0.1), values=values))[0].params

    specs, fixed_specs = make(0.4), make(0.2)
    step: Any = jax.jit(specs.step)
    moved = after_step(specs, step, {key: jnp.float32(0.2)})
    other = after_step(specs, step, {key: jnp.float32(0.4)})
    assert step._cache_size() == 1
    fixed = after_step(fixed_specs, jax.jit(fixed_specs.step), None)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6), moved, fixed)
    gaps = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), moved, other)
    assert max(gaps.values()) > 1e-3


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "lion"])
def test_runs_that_differ_in_numbers_of_their_optimizer_share_a_program(optimizer):
    def lowered(*overrides):
        config = compose([*TINY, f"optimizer={optimizer}", *overrides])
        return lowered_program(
            "step", ProgramSpecs(config, build(config, 257), abstract_mesh(config.mesh)), "cpu"
        )

    base = lowered()
    numbers = ("optimizer.weight_decay=.05", "optimizer.b1=.8", "optimizer.b2=.99", "optimizer.clip_norm=3")
    assert lowered(*numbers) is base
    assert lowered("optimizer.weight_decay=0").text_hash != base.text_hash
    assert lowered("loss.z_loss=1e-4") is lowered("loss.z_loss=1e-3")


def test_an_optimizer_of_ones_own_has_its_numbers_in_the_program():
    assert constant_values(compose([*TINY, "optimizer=soap"])) == {}
    moved = values_config({"optimizer.weight_decay": {"name": "linear"}})
    assert set(constant_values(moved)) == {
        f"optimizer.{name}" for name in ("b1", "b2", "epsilon", "clip_norm")
    }
