"""The probability that B ends below A: against scipy's non-central t, and its coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from harness.compare import compare_curves
from harness.compare.stats.paired_effects import paired_effect, welch_effect
from harness.compare.stats.superiority import OTHER_SEED, SAME_SEED, noncentrality, probability_b_better
from tests.compare.test_compare_curves import log

A = np.array([3.01, 3.12, 3.2, 3.05])
B = np.array([2.98, 3.07, 3.19, 3.01])


@pytest.mark.parametrize("df", [2, 3, 7.4, 30])
@pytest.mark.parametrize("t", [-12.0, -2.5, 0.0, 0.3, 6.0])
@pytest.mark.parametrize("probability", [0.025, 0.5, 0.975])
def test_the_noncentrality_is_that_of_scipy(t, df, probability):
    found = noncentrality(t, df, probability)
    assert stats.nct.cdf(t, df, found) == pytest.approx(probability, abs=5e-4)


def test_swapping_the_variants_mirrors_it():
    ours = probability_b_better(paired_effect(A, B), A, B, paired=True)
    mirrored = probability_b_better(paired_effect(B, A), B, A, paired=True)
    assert (ours.value, ours.low, ours.high) == pytest.approx(
        (1 - mirrored.value, 1 - mirrored.high, 1 - mirrored.low)
    )
    assert ours.low < ours.value < ours.high
    assert ours.estimand == SAME_SEED
    shifted = probability_b_better(paired_effect(A + 1, B + 1), A + 1, B + 1, paired=True)
    assert shifted.value == pytest.approx(ours.value)


def test_one_seed_has_none():
    assert probability_b_better(paired_effect(A[:1], B[:1]), A[:1], B[:1], paired=True) is None


@pytest.mark.parametrize(("paired", "correlation"), [(True, 0.25), (False, 0.0)])
@pytest.mark.parametrize(("shift", "n"), [(0.0, 3), (1.0, 3), (1.0, 5), (3.0, 5)])
def test_the_interval_covers_the_truth(paired, correlation, shift, n):
    rng = np.random.default_rng(7)
    spread = np.sqrt(2 - 2 * correlation if paired else 2)
    truth = stats.norm.cdf(shift / spread)
    hits, estimates = 0, []
    for _ in range(500):
        shared = rng.normal(size=n) * np.sqrt(correlation)
        a, b = (shared + rng.normal(size=n) * np.sqrt(1 - correlation) for _ in range(2))
        b = b - shift
        delta = paired_effect(a, b) if paired else welch_effect(a, b)
        found = probability_b_better(delta, a, b, paired)
        hits += found.low <= truth <= found.high
        estimates.append(found.value)
    assert 0.92 <= hits / 500 <= 0.985
    assert np.median(estimates) == pytest.approx(truth, abs=0.06)


def test_a_rung_has_it():
    rung = compare_curves(log(), decayed="last").rungs[0]
    found = rung.probability_b_better
    assert found.value > 0.99
    assert found.estimand == SAME_SEED
    assert 0.5 < found.low < found.high <= 1
    apart = log().filter((log()["variant"] == "a") == (log()["seed"] < 2))
    assert compare_curves(apart, decayed="last").rungs[0].probability_b_better is None
    unmatched = log(seeds=range(6)).filter(
        (log(seeds=range(6))["variant"] == "a") == (log(seeds=range(6))["seed"] < 3)
    )
    assert compare_curves(unmatched, decayed="last").rungs[0].probability_b_better.estimand == OTHER_SEED
