"""Ladders of one seed a scale: the scales as a sample, against scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from harness.compare.stats.across_scales import ESTIMAND, across_scales, sign_test
from tests.compare.numbers import exactly


def test_interval_and_sign_test_are_those_of_scipy():
    log_k = np.random.default_rng(0).normal(0.1, 0.1, size=8)
    found = across_scales(log_k.tolist())
    assert found
    t = stats.ttest_1samp(log_k, 0.0)
    interval = t.confidence_interval(0.95)
    assert (found.log_low, found.log_high) == (exactly(interval.low), exactly(interval.high))
    assert (found.low, found.k, found.high) == tuple(
        exactly(math.exp(value)) for value in (interval.low, log_k.mean(), interval.high)
    )
    assert (found.scales, found.positive, found.df) == (8, (log_k > 0).sum(), 7)
    assert found.sign_p == exactly(stats.binomtest(int((log_k > 0).sum()), 8).pvalue)
    assert found.estimand == ESTIMAND


@pytest.mark.parametrize(("positive", "negative"), [(8, 0), (0, 8), (7, 1), (4, 4), (3, 2), (1, 0)])
def test_sign_test(positive, negative):
    assert sign_test(positive, negative) == exactly(stats.binomtest(positive, positive + negative).pvalue)


def test_a_scale_without_difference_counts_in_the_mean_and_in_no_sign():
    found = across_scales([0.0, 0.1, 0.1, 0.1])
    assert found
    assert (found.scales, found.positive, found.sign_p) == (4, 3, exactly(0.25))
    assert sign_test(0, 0) == 1.0


def test_mirrored_and_shuffled_scales():
    log_k = [0.05, -0.02, 0.11, 0.07, 0.3]
    found, mirrored = across_scales(log_k), across_scales([-value for value in reversed(log_k)])
    assert found
    assert mirrored
    assert (mirrored.log_low, mirrored.log_high) == (exactly(-found.log_high), exactly(-found.log_low))
    assert mirrored.sign_p == found.sign_p
    assert mirrored.positive == found.scales - found.positive


def test_three_scales_or_a_missing_number_are_no_sample():
    assert across_scales([0.1, 0.2, 0.3]) is None
    assert across_scales([0.1, 0.2, 0.3, math.nan]) is None
