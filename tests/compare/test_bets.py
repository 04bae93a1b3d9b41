"""HERE, agreement of the scales, and BET: by simulation with small counts, and exact properties."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from harness.compare.stats.bet import BetDecision, Drift, bet_at
from harness.compare.stats.block_variance import SeedBlock, block_effect, seed_block
from harness.compare.stats.distributions import t_critical
from harness.compare.stats.heterogeneity import heterogeneity_p
from harness.compare.stats.paired_effects import paired_effect
from tests.compare import simulate_bets as simulate
from tests.compare.numbers import exactly, made

DECADE = math.log(10)


@pytest.mark.parametrize(("treatments", "n"), [(2, 2), (2, 3), (6, 3), (20, 2)])
def test_size_of_the_block(treatments, n):
    assert simulate.at_largest(1500, treatments, n).within(0.05)


@pytest.mark.parametrize(("noisy", "limit"), [(1.5, 0.07), (2.0, 0.09)])
@pytest.mark.parametrize("treatments", [2, 3])
def test_size_with_one_noisier_arm(noisy, limit, treatments):
    assert simulate.at_largest(1500, treatments, 3, noisy=noisy, arm=treatments).within(limit)


def test_power_grows_with_the_treatments():
    own, two, six = (simulate.at_largest(600, treatments, 3, 0.003).value for treatments in (1, 2, 6))
    assert own + 0.05 < two < six


def test_a_noisier_arm_is_found():
    assert simulate.found_noisier(400, 3, 5, 1.0).within(0.1)
    assert simulate.found_noisier(400, 3, 5, 6.0).value > 0.8


@pytest.mark.parametrize(("noises", "n"), [((1, 1, 1), 2), ((1, 1, 1), 3), ((4, 2, 1), 3), ((1, 2, 4), 3)])
def test_size_of_the_test_for_agreement(noises, n):
    assert simulate.heterogeneous(1500, 3, n, noises).within(0.13)


@pytest.mark.parametrize("scales", [1, 2, 3, 5])
@pytest.mark.parametrize("n", [2, 5])
def test_coverage_of_the_bet(scales, n):
    assert simulate.bet_coverage(600, simulate.walk(0.03), scales, n).value >= 0.90
    assert simulate.bet_coverage(400, simulate.walk(0.05), scales, n).value >= 0.78


@pytest.mark.parametrize("scales", [2, 3, 4])
@pytest.mark.parametrize("noise", [1.0, 4.0, 12.0])
def test_wrong_bets_are_rare(scales, noise):
    paths = [simulate.walk(0.03), simulate.walk(0.05), simulate.line(0.04), simulate.line(-0.04)]
    for path in paths:
        assert simulate.wrong_bets(300, path, scales, 3, noise).within(0.02)


def test_a_line_that_crosses_zero_is_no_bet():
    for at_largest in (0.02, 0.09, 0.18):
        slope = -(at_largest + 0.02) / DECADE
        assert simulate.wrong_bets(300, simulate.line(slope, at_largest), 3, 3).within(0.005)


def test_the_chance_is_what_it_says():
    for low, high in ((0.05, 0.2), (0.8, 0.95)):
        assert abs(simulate.chance_between(1500, low, high) - (low + high) / 2) < 0.12


X = [0.0, DECADE, 2 * DECADE]
LADDER = [made(0.02, 0.01), made(0.05, 0.01), made(0.04, 0.008)]


def mirrored(multiplier):
    low, high = -multiplier.log_high, -multiplier.log_low
    return dataclasses.replace(multiplier, log_k=-multiplier.log_k, log_low=low, log_high=high)


def test_swapping_the_variants_mirrors_the_bet():
    target = math.exp(X[-1]) * 10
    bet, other = bet_at(X, LADDER, target), bet_at(X, [mirrored(k) for k in LADDER], target)
    assert bet
    assert other
    assert (other.low, other.high) == (exactly(-bet.high), exactly(-bet.low))
    assert other.chance == exactly(1 - bet.chance)
    assert other.p == exactly(bet.p)
    sides = {bet.decide(0.01, 0.05), other.decide(0.01, 0.05)}
    assert sides == {BetDecision.BET_A, BetDecision.BET_B}


def test_a_target_at_the_largest_scale_is_that_scale():
    bet, last = bet_at(X, LADDER, math.exp(X[-1])), LADDER[-1]
    assert bet
    assert last.log_se
    assert last.df
    assert bet.high - bet.log_k == exactly(t_critical(last.df, 0.9) * last.log_se)


def test_a_scale_without_interval_below_changes_nothing():
    target = math.exp(X[-1]) * 10
    blind = dataclasses.replace(made(0.5, 1.0), log_se=None)
    assert bet_at([-DECADE, *X], [blind, *LADDER], target) == bet_at(X, LADDER, target)
    assert bet_at(X, [*LADDER[:2], blind], target) is None


def test_only_a_wide_drift_cannot_be_settled_by_seeds():
    target = math.exp(X[-1]) * 10
    near, far = bet_at(X[-1:], LADDER[-1:], math.exp(X[-1])), bet_at(X[-1:], LADDER[-1:], target)
    assert near
    assert far
    assert not near.no_seeds_help
    assert far.no_seeds_help
    known = bet_at(X[-1:], LADDER[-1:], target, Drift(0.001, 12))
    assert known
    assert not known.no_seeds_help
    assert known.decide(1.0, 0.05) is BetDecision.OPEN
    assert known.decide(1.0, 0.2) is BetDecision.EITHER


def test_a_complete_block_by_hand():
    losses = np.random.default_rng(0).normal(size=(3, 4))
    block = SeedBlock(("a", "b", "c"), losses)
    found = block_effect(block, "a", "b")
    residuals = losses - losses.mean(1, keepdims=True) - losses.mean(0) + losses.mean()
    variance = 2 * (residuals**2).sum() / (2 * 3)
    assert found
    assert found.se
    assert (found.df, found.n) == (6, 4)
    assert found.mean == exactly(losses[1].mean() - losses[0].mean())
    assert found.se == exactly(math.sqrt(variance / 4))


def test_a_block_of_two_arms_is_the_paired_t():
    a, b = np.random.default_rng(1).normal(size=(2, 5))
    block = SeedBlock(("a", "b"), np.array([a, b]))
    found, pairs = block_effect(block, "a", "b"), paired_effect(a, b)
    assert found
    assert (found.mean, found.se, found.df) == (exactly(pairs.mean), exactly(pairs.se), 4)


def test_a_missing_run_widens_and_a_lone_seed_is_left_out():
    rng = np.random.default_rng(2)
    losses = {arm: {seed: rng.normal() for seed in range(4)} for arm in "abc"}
    whole = seed_block(losses)
    losses["a"][9] = 5.0
    assert whole is not None
    assert seed_block(losses) is not None
    np.testing.assert_array_equal(seed_block(losses).losses_VN, whole.losses_VN)
    del losses["b"][0]
    smaller = seed_block(losses)
    assert smaller
    partial = block_effect(smaller, "a", "b")
    assert partial
    assert (partial.df, partial.n) == (5, 3)
    assert seed_block({arm: losses[arm] for arm in "ab"}) is None


def test_agreement_needs_two_scales():
    assert heterogeneity_p(LADDER[:1]) is None
    assert heterogeneity_p([made(0.0, 0.001), made(0.5, 0.001)]) < 1e-6
    assert heterogeneity_p([made(0.1, 0.01), made(0.1, 0.02)]) > 0.9
