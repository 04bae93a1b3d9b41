"""The rule over intervals, flags and equivalence, and what would settle an open case."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from harness.compare.stats import paired_effects
from harness.compare.verdict.decide import decide_ladder, seeds_to_halve
from tests.compare.numbers import made


@pytest.mark.parametrize(
    ("low", "high", "largest", "tost", "flags", "decision"),
    [
        (0.01, 0.05, -0.1, None, (), "B_BETTER"),
        (0.01, 0.05, 0.1, None, (), "INCONCLUSIVE"),
        (-0.05, -0.01, 0.1, None, (), "A_BETTER"),
        (-0.05, -0.01, -0.1, None, (), "INCONCLUSIVE"),
        (-0.005, 0.005, 0.1, 0.01, (), "EQUIVALENT"),
        (-0.05, 0.05, 0.1, 0.3, (), "INCONCLUSIVE"),
        (0.01, 0.05, -0.1, None, ("LOW_DF",), "B_BETTER"),
        (0.01, 0.05, -0.1, None, ("MIXED_CODE",), "INVALID"),
    ],
)
def test_decision_of_a_ladder(low, high, largest, tost, flags, decision):
    effect = paired_effects.effect_from_deltas(largest + np.array([0.01, -0.01, 0.0, 0.0]))
    found = decide_ladder(made(0.5 * (low + high), 0.01), low, high, effect, tost, flags, 0.05)
    assert found.decision.value == decision


@pytest.mark.parametrize(("n", "more"), [(3, 2), (5, 8), (8, 17)])
def test_seeds_that_halve_the_interval(n, more):
    """t(n-1) / sqrt(n) is the width at equal noise: 4.303 / sqrt 3 against 2.776 / sqrt 5, and so on."""
    found = seeds_to_halve(paired_effects.effect_from_deltas(np.random.default_rng(0).normal(size=n)))

    def width(m):
        return scipy.stats.t.ppf(0.975, m - 1) / math.sqrt(m)

    assert found == more
    assert width(n + more) <= width(n) / 2 < width(n + more - 1)
