"""What looks and the e-process may spend, and when they stop."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.compare.stats import paired_effects, sequential
from tests.compare.numbers import exactly, made


def test_looks_spend_alpha_exactly():
    for looks in (1, 4, 5, 31):
        assert sum(sequential.alpha_spending(k, looks) for k in range(1, looks + 1)) == pytest.approx(0.05)
    with pytest.raises(ValueError, match="look 6 of 5"):
        sequential.alpha_spending(6, 5)


def test_a_look_needs_the_sign_of_the_one_before():
    clear = paired_effects.effect_from_deltas([-0.1, -0.11, -0.1, -0.09, -0.1])
    other = paired_effects.effect_from_deltas([0.1, 0.11, 0.1, 0.09, 0.1])
    test = sequential.SequentialTest(looks=4)
    assert test.add_look(clear) is sequential.LookOutcome.proceed
    assert test.add_look(other) is sequential.LookOutcome.proceed
    assert test.add_look(other) is sequential.LookOutcome.efficacy
    assert test.add_look(clear) is sequential.LookOutcome.efficacy
    with pytest.raises(ValueError, match="look 5 of 4"):
        test.add_look(clear)


def test_futility_is_equivalence():
    test = sequential.SequentialTest(looks=4, margin=0.01)
    nothing = paired_effects.effect_from_deltas([0.001, -0.001, 0.0005, -0.0004])
    assert test.add_look(nothing, made(0.0, 0.02)) is sequential.LookOutcome.proceed
    assert test.add_look(nothing, made(0.0, 0.001, df=30.0)) is sequential.LookOutcome.futility


def test_e_process_is_its_formula_and_its_scale_does_not_matter():
    rng = np.random.default_rng(0)
    d = rng.normal(0.8, 1.0, 6)
    process = sequential.SeedEProcess()
    values = [process.add(x) for x in d]
    n, tau, nu = 6, 2.0, 5
    t = d.mean() / d.std(ddof=1) * math.sqrt(n)
    width = 1 + n * tau**2
    wanted = -0.5 * math.log(width) - (nu + 1) / 2 * (
        math.log(1 + t**2 / (nu * width)) - math.log(1 + t**2 / nu)
    )
    assert values[0] == 0.0
    assert values[-1] == exactly(wanted)
    assert sequential.log_e_values(np.array([d * 1000]))[0, -1] == exactly(wanted)
    for _ in range(30):
        process.add(2.0 + rng.normal() * 0.1)
    assert process.stopped
    with pytest.raises(ValueError, match="diverged"):
        process.add(math.nan)


def test_e_process_of_equal_differences():
    assert sequential.log_e_values(np.zeros((1, 5)))[0, -1] < 0
    assert sequential.log_e_values(np.ones((1, 5)))[0, -1] == pytest.approx(2 * math.log(21))
