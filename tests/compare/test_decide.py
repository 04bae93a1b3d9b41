"""The rule over intervals, flags and equivalence, and what would settle an open case."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats

from harness.compare.results.verdict_types import Decision
from harness.compare.stats import paired_effects
from harness.compare.verdict.decide import (
    decide_largest_scale,
    decide_rung,
    next_step_for_rung,
    seeds_to_clear,
    seeds_to_halve,
)
from tests.report.example import ladder, rung


@pytest.mark.parametrize(
    ("at_largest", "flags", "decision"),
    [
        ("B_BETTER", (), "B_BETTER"),
        ("A_BETTER", ("LOW_DF",), "A_BETTER"),
        ("EQUIVALENT", (), "EQUIVALENT"),
        ("B_BETTER", ("MIXED_CODE",), "INVALID"),
        ("B_BETTER", ("DECAY_UNVERIFIED",), "INCONCLUSIVE"),
        ("EQUIVALENT", ("DECAY_UNVERIFIED",), "EQUIVALENT"),
        (None, (), "INCONCLUSIVE"),
    ],
)
def test_a_ladder_is_decided_by_its_largest_scale_unless_a_flag_of_any_forbids(at_largest, flags, decision):
    largest = at_largest and dataclasses.replace(rung("m", "b", 0.1), decision=Decision(at_largest))
    largest_scale = largest and ladder("b", 0.1).largest_scale
    assert decide_largest_scale(largest, largest_scale, flags, 0.05).decision.value == decision


@pytest.mark.parametrize(("n", "more"), [(3, 2), (5, 8), (8, 17)])
def test_seeds_that_halve_the_interval(n, more):
    """t(n-1) / sqrt(n) is the width at equal noise: 4.303 / sqrt 3 against 2.776 / sqrt 5, and so on."""
    found = seeds_to_halve(paired_effects.effect_from_deltas(np.random.default_rng(0).normal(size=n)))

    def width(m):
        return scipy.stats.t.ppf(0.975, m - 1) / math.sqrt(m)

    assert found == more
    assert width(n + more) <= width(n) / 2 < width(n + more - 1)


def test_seeds_that_clear_zero_are_those_of_the_interval_at_equal_noise():
    """A difference of one SD: three pairs leave zero inside, and seven do not."""
    deltas = 1 + np.array([-1.0, 1.0, 0.0])
    found = paired_effects.effect_from_deltas(deltas)
    more = seeds_to_clear(found.mean, found.se, found.n, found.df, 0.95)
    assert more is not None

    def low(m):
        return 1 - scipy.stats.t.ppf(0.975, m - 1) / math.sqrt(m)

    assert low(3 + more) > 0 > low(3 + more - 1)
    assert seeds_to_clear(1e-6, found.se, found.n, found.df, 0.95) == math.inf


@pytest.mark.parametrize(
    ("mean", "advice"),
    [
        (1.0, "about 4 more seeds, if the difference stays as it is"),
        (2.0, "2 more seeds would halve the interval"),
        (0.01, "more than 200 seeds, because the difference is small against the noise of the seeds"),
    ],
)
def test_half_an_interval_is_advised_only_where_it_settles(mean, advice):
    effect = paired_effects.effect_from_deltas(mean + np.array([-1.0, 1.0, 0.0]))
    ruling = decide_rung(effect, 0.5, None, (), 0.05)
    assert next_step_for_rung(ruling, effect, (), seeds_to_halve(effect)) == advice
