"""Mean differences: SciPy's, or by hand where it has none; no number where the design carries none."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.stats
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.compare.inputs.noise_floor import noise_floor
from harness.compare.stats import paired_effects
from harness.compare.stats.estimates import Estimand
from harness.compare.stats.paired_effects import trajectory_band
from tests.compare.numbers import exactly

RNG = np.random.default_rng(0)
A, B = RNG.normal(3.0, 0.01, 7), RNG.normal(2.99, 0.01, 7)


@pytest.mark.parametrize("n", [2, 3, 5, 7])
def test_paired_t_is_scipys(n):
    ours, theirs = paired_effects.paired_effect(A[:n], B[:n]), scipy.stats.ttest_rel(B[:n], A[:n])
    interval = theirs.confidence_interval(0.95)
    assert (ours.p, ours.df, ours.low, ours.high) == exactly(
        (theirs.pvalue, theirs.df, interval.low, interval.high)
    )
    assert ("LOW_DF" in ours.flags) == (n < 4)


def test_welch_is_scipys():
    ours = paired_effects.welch_effect(A[:4], B)
    theirs: Any = scipy.stats.ttest_ind(B, A[:4], equal_var=False)
    interval = theirs.confidence_interval(0.95)
    assert (ours.p, ours.df, ours.low, ours.high) == exactly(
        (theirs.pvalue, theirs.df, interval.low, interval.high)
    )
    assert "unpaired" in ours.method


def test_newey_west_is_statsmodels_and_is_never_a_population_statement():
    rng = np.random.default_rng(0)
    d = np.cumsum(rng.normal(size=200)) * 0.01
    band = trajectory_band(d, lags=6)
    theirs = sm.OLS(d, np.ones_like(d)).fit(cov_type="HAC", cov_kwds={"maxlags": 6})
    assert (band.mean, band.se) == exactly((theirs.params[0], theirs.bse[0]))
    assert (band.p, band.estimand) == (None, Estimand.trajectory_only)


def test_one_pair_never_gets_an_interval_or_a_p():
    found = paired_effects.paired_effect([3.0], [2.0])
    assert (found.mean, found.low, found.high, found.p, found.df) == (-1.0, None, None, None, None)
    assert found.estimand is Estimand.trajectory_only


def test_moderated_variance_by_hand():
    floor = paired_effects.NoiseFloor("s", 0.002, 10)
    d = np.array([0.001, 0.003, 0.002])
    found = paired_effects.effect_from_deltas(d, floor=floor)
    variance = (10 * 0.002**2 + 2 * d.var(ddof=1)) / 12
    assert (found.df, found.se) == exactly((12, math.sqrt(variance / 3)))
    assert paired_effects.effect_from_deltas(np.append(d, 0.004), floor=floor).method == "paired t"


def test_variance_mismatch_is_seen():
    floor = paired_effects.NoiseFloor("s", 0.001, 40)
    noisy, quiet = ([sd * np.array([-1.0, 0.0, 1.0])] * 4 for sd in (0.003, 0.0007))
    assert paired_effects.variance_mismatch(noisy, [floor] * 4)
    assert not paired_effects.variance_mismatch(quiet, [floor] * 4)
    assert paired_effects.variance_mismatch([d / 7 for d in quiet], [floor] * 4), (
        "pairs that share their start"
    )
    assert not paired_effects.variance_mismatch(noisy, [None] * 4)


losses = st.lists(st.floats(1.0, 10.0), min_size=4, max_size=9)


@given(losses)
@settings(max_examples=40, deadline=None)
def test_metamorphic(values):
    a = np.array(values)
    b = a + np.random.default_rng(len(values)).normal(0, 0.1, a.size)
    found = paired_effects.paired_effect(a, b)
    swapped = paired_effects.paired_effect(b, a)
    assert (found.mean, found.low, found.high, found.p) == (
        -swapped.mean, -swapped.high, -swapped.low, swapped.p,
    )  # fmt: skip
    shifted = paired_effects.paired_effect(a + 2.0, b + 2.0)
    assert (shifted.mean, shifted.p) == pytest.approx((found.mean, found.p), rel=1e-6, abs=1e-12)
    order = np.random.default_rng(1).permutation(a.size)
    mixed = paired_effects.paired_effect(a[order], b[order])
    assert (mixed.mean, mixed.p) == pytest.approx((found.mean, found.p), rel=1e-9)


def test_equal_runs_are_zero_and_an_equal_shift_is_not_believed():
    same = paired_effects.paired_effect(A, A)
    assert (same.mean, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)
    assert "CORRELATION_IMPLAUSIBLE" in same.flags
    shifted = paired_effects.paired_effect(A, A + 0.25)
    assert (shifted.p, shifted.low) == (None, None)
    assert "CORRELATION_IMPLAUSIBLE" in shifted.flags


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_losses_give_a_flag_and_no_number(bad):
    for test in (paired_effects.paired_effect, paired_effects.welch_effect):
        found = test(A, np.append(B[:-1], bad))
        assert found.mean is None
        assert "DIVERGED" in found.flags


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="7 control losses but 3"):
        paired_effects.paired_effect(A, B[:3])


def test_noise_floor_from_groups():
    groups = [[1.0, 1.2], [2.0, 2.4, 2.2]]
    floor = noise_floor(groups)
    within = (0.02 * 1 + 0.04 * 2) / 3
    assert (floor.s0, floor.df) == exactly((math.sqrt(2 * within), 3))
    assert floor.correlation > 0.9
    assert noise_floor([[1.0], [2.0]]) is None


def test_outliers_are_named_only_when_far():
    rng = np.random.default_rng(0)
    quiet = [rng.normal(0, 1, 5), rng.normal(3, 1, 5)]
    assert not any(found.any() for found in paired_effects.outlier_masks(quiet))
    quiet[0][2] = 60.0
    assert paired_effects.outlier_masks(quiet)[0].tolist() == [False, False, True, False, False]
