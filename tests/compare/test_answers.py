"""The rest of the second acceptance table with small counts; `make test-statistics` runs it in full."""

from __future__ import annotations

import pytest

from tests.compare import simulate_answers as simulate
from tests.compare.simulate_bets import walk


def test_pooling_with_the_sign_at_the_largest_scale_calls_what_is_zero_there():
    assert simulate.pooled_with_sign(200, walk(0.03), 3, 3).value > 0.3


@pytest.mark.parametrize("k", [1.01, 1.1, 1.3])
def test_coverage_of_k_of_two_seeds(k):
    assert simulate.k_of_two_seeds(400, k).value >= 0.945


@pytest.mark.parametrize("ratio", [0.8, 1.25, 1.6])
def test_k_of_pairs_at_equal_flops(ratio):
    found = simulate.compute_matched(400, ratio)
    assert abs(found.bias) <= 0.004
    assert found.coverage.value >= 0.91


@pytest.mark.parametrize(
    "path",
    [
        simulate.heavy_walk(0.03),
        simulate.random_line(0.04),
        simulate.saturating(0.06),
        simulate.scattered(0.02),
    ],
)
def test_the_side_that_is_bet_is_seldom_the_wrong_one(path):
    for scales in (1, 3):
        shares = simulate.bet_shares(200, path, scales, 3)
        assert shares.of_ladders.within(0.02)
        assert shares.of_bets.within(0.05)
    assert simulate.bet_shares(50, simulate.constant(0.0), 2, 3).of_ladders.hits == 0


def test_chances_are_worth_what_they_say():
    shares = simulate.told_chances(1_000)
    middles = [(low + high) / 2 for low, high in simulate.CHANCES]
    assert shares == pytest.approx(middles, abs=0.13)
