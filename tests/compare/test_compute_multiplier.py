"""k from a slope, along the horizon and the ladder: exact where the curve is known."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from harness.compare.stats import compute_multiplier, control_slope, paired_effects
from harness.compare.stats.estimates import SlopeAxis
from tests.compare.numbers import exactly, made


def test_multiplier_recovers_k_exactly_on_a_power_law():
    def curve(tokens):
        return 2.0 + 2085 / tokens**0.35

    tokens, k = 2e9, 1.3
    delta = paired_effects.effect_from_deltas(
        curve(k * tokens) - curve(tokens) + np.array([-1e-9, 1e-9, 0, 0])
    )
    slope = control_slope.horizon_slope([curve(tokens / 2)] * 2, [curve(tokens)] * 2, 2.0)
    found = compute_multiplier.compute_multiplier(delta, slope)
    assert found.k == pytest.approx(k, rel=1e-6)
    assert found.estimand is SlopeAxis.k_tokens
    assert "SLOPE_LOCAL" in found.flags


def test_plain_chord_is_the_difference_over_the_slope():
    slope = control_slope.horizon_slope([3.2, 3.3], [3.0, 3.1], 2.0, exponent=0)
    found = compute_multiplier.compute_multiplier(
        paired_effects.effect_from_deltas([-0.02, -0.03, -0.01, -0.02]), slope
    )
    assert found.log_k == pytest.approx(0.02 / (0.2 / math.log(2)))


def test_two_pairs_leave_k_the_degrees_of_freedom_of_their_difference():
    delta = paired_effects.effect_from_deltas([-0.02, -0.03])
    slope = control_slope.horizon_slope([3.20, 3.21], [3.0, 3.012], 2.0)
    assert compute_multiplier.compute_multiplier(delta, slope).df == 1
    three = paired_effects.effect_from_deltas([-0.02, -0.03, -0.025])
    assert compute_multiplier.compute_multiplier(three, slope).df > 2


def test_slope_out_of_range():
    flat = control_slope.horizon_slope([3.0, 3.0], [3.1, 3.1], 2.0)
    steep = control_slope.horizon_slope([3.1, 3.1], [3.0, 3.0], 2.0)
    for slope, size in ((flat, 0.01), (steep, 5.0)):
        found = compute_multiplier.compute_multiplier(
            paired_effects.effect_from_deltas(size + np.array([0.0, 1e-5, -1e-5, 2e-5])), slope
        )
        assert found.k is None
        assert "SLOPE_OUT_OF_RANGE" in found.flags


def test_ladder_fit_recovers_its_curve():
    flops = np.array([1e15, 1e16, 1e17, 1e18, 1e19])
    fit = control_slope.fit_ladder(flops, 1.8 + 3.0 * (flops / 1e17) ** -0.15)
    assert (fit.E, fit.a, fit.b, fit.C0) == pytest.approx((1.8, 3.0, 0.15, 1e17), rel=1e-4)
    assert fit.slopes[2].g == pytest.approx(0.45, rel=1e-4)
    assert not fit.slopes[0].flags
    assert control_slope.fit_ladder(flops[:3], [3.0, 2.5, 2.2]) is None
    assert "POOR_FIT" in control_slope.fit_ladder(flops, [3.0, 2.0, 3.0, 2.0, 3.0]).slopes[0].flags


def test_pooling_by_hand():
    found = compute_multiplier.pooled_multiplier([made(0.04, 0.01, g=0.6), made(0.06, 0.02, g=0.3)])
    parts = np.array([0.8**2 * 0.01**2, 0.2**2 * 0.02**2])
    assert (found.log_k, found.log_se) == exactly((0.8 * 0.04 + 0.2 * 0.06, math.sqrt(parts.sum())))
    assert found.df == exactly(parts.sum() ** 2 / (parts**2 / 4).sum())
    assert compute_multiplier.pooled_multiplier([]) is None


def test_estimands_are_never_pooled():
    other = dataclasses.replace(made(0.04, 0.01), estimand=SlopeAxis.k_compute)
    with pytest.raises(ValueError, match="different quantities"):
        compute_multiplier.pooled_multiplier([made(0.04, 0.01), other])
