"""Errors of slopes that come from one curve: how they are correlated, and what that does to trend and k."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from harness.compare.stats.bet import bet_at
from harness.compare.stats.compute_multiplier import compute_multiplier, satterthwaite
from harness.compare.stats.control_slope import fit_ladder
from harness.compare.stats.distributions import t_critical
from harness.compare.stats.estimates import Multiplier
from harness.compare.stats.heterogeneity import heterogeneity_p
from harness.compare.stats.paired_effects import effect_from_deltas
from tests.compare import simulate_ladders as simulate
from tests.compare.numbers import exactly, made


@pytest.mark.parametrize(("scales", "scatter"), [(4, 0.021), (8, 0.0098), (4, 0.0023), (4, 0.0)])
@pytest.mark.parametrize("bends", [False, True])
def test_coverage_where_the_control_scatters(scales, scatter, bends):
    assert simulate.ladder_coverage(120, scales, scatter, bends=bends).at_least(0.92)


def test_a_slope_error_is_what_a_moved_mean_makes_of_the_slope():
    x = np.log(10) * np.arange(5.0)
    means = simulate.curve(x) + np.array([3, -5, 4, -2, 1]) * 1e-4
    fit = fit_ladder(np.exp(x), means)
    sigma = math.sqrt(fit.residual**2 * 5 / 2)
    for moved in range(5):
        step = np.zeros(5)
        step[moved] = 1e-6
        up, down = (fit_ladder(np.exp(x), means + sign * step) for sign in (1, -1))
        slopes = zip(up.slopes, down.slopes, fit.slopes, strict=True)
        changes = [(a.g - b.g) / 2e-6 / s.g for a, b, s in slopes]
        loadings = [slope.shared_errors[moved] / sigma for slope in fit.slopes]
        np.testing.assert_allclose(loadings, changes, rtol=0.02, atol=0.02)
    assert {slope.shared_df for slope in fit.slopes} == {2.0}


def test_scatter_that_seeds_explain_adds_no_bends():
    x = np.log(10) * np.arange(4.0)
    means = simulate.curve(x) + np.array([1, -1, 1, -1]) * 1e-3
    quiet, noisy = (fit_ladder(np.exp(x), means, np.full(4, se)) for se in (1e-4, 1e-2))
    assert not any(noisy.slopes[0].shared_errors[4:])
    assert (noisy.slopes[0].shared_df, quiet.slopes[0].shared_df) == (math.inf, 1.0)
    assert quiet.slopes[1].shared_errors[5] > 0


def test_an_error_common_to_all_scales_cancels_in_a_contrast_and_not_in_a_mean():
    ladder = [dataclasses.replace(made(0.1, 0.02), shared_se=0.01, shared_errors=(0.01,)) for _ in range(3)]
    own = math.sqrt(0.02**2 - 0.01**2)
    assert satterthwaite(np.array([-1.0, 0.0, 1.0]), ladder)[0] == exactly(math.sqrt(2) * own)
    assert satterthwaite(np.full(3, 1 / 3), ladder)[0] == exactly(math.sqrt(own**2 / 3 + 0.01**2))


def test_a_shared_error_of_few_df_keeps_its_wide_quantile():
    own, shared, df = 0.02, 0.01, 1.0
    multiplier = dataclasses.replace(
        made(0.1, math.hypot(own, shared)),
        own_df=4.0,
        shared_se=shared,
        shared_errors=(shared,),
        shared_df=df,
    )
    se, total_df = satterthwaite(np.ones(1), [multiplier])
    half = math.hypot(t_critical(4.0, 0.95) * own, t_critical(df, 0.95) * shared)
    assert t_critical(total_df, 0.95) * se == exactly(half)


def test_scatter_widens_k_and_a_curve_without_scatter_does_not():
    x = np.log(10) * np.arange(4.0)
    delta = effect_from_deltas([-0.02, -0.021, -0.019, -0.02])
    smooth, rough = (
        fit_ladder(np.exp(x), simulate.curve(x) + scatter * np.array([1, -2, 2, -1]), np.full(4, 1e-5))
        for scatter in (0.0, 5e-3)
    )
    narrow, wide = (compute_multiplier(delta, fit.slopes[1]) for fit in (smooth, rough))
    assert narrow.shared_se < 0.01 * (narrow.log_se or 0.0)
    assert width(wide) > 5 * width(narrow)


def with_slope_errors(errors_SR) -> list[Multiplier]:
    """Three scales of SE .02 without, and more with, these errors of their slopes."""
    ladder = []
    for log_k, errors in zip((0.00, 0.05, 0.12), errors_SR, strict=True):
        shared = math.hypot(*errors)
        k = made(log_k, math.hypot(0.02, shared))
        ladder.append(dataclasses.replace(k, own_df=4.0, shared_se=shared, shared_errors=errors))
    return ladder


def test_agreement_and_drift_know_which_slope_errors_cancel():
    x, target = [0.0, 2.3, 4.6], math.exp(6.9)
    without = with_slope_errors([(0.0,)] * 3)
    common = with_slope_errors([(0.03,)] * 3)
    separate = with_slope_errors([(0.03, 0.0, 0.0), (0.0, 0.03, 0.0), (0.0, 0.0, 0.03)])
    p, same, larger = (heterogeneity_p(ladder) for ladder in (without, common, separate))
    assert p
    assert larger
    assert same == exactly(p)
    assert larger > p
    bets = [bet_at(x, ladder, target) for ladder in (without, common, separate)]
    first, second, third = (bet.seen_df if bet else None for bet in bets)
    assert first
    assert third
    assert second == exactly(first)
    assert third < first


def width(k: Multiplier) -> float:
    assert k.log_low is not None
    assert k.log_high is not None
    return k.log_high - k.log_low
