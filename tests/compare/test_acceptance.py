"""The acceptance table with small counts; `make test-statistics` runs it in full."""

from __future__ import annotations

import pytest

from harness.compare import compare
from harness.compare.results.verdict_types import Decision
from tests.compare import real, simulate
from tests.compare.synthetic import Recipe, write_sweep


@pytest.mark.parametrize("n", [3, 5, 8])
def test_coverage_of_the_interval_of_one_scale(n):
    assert 0.93 <= simulate.coverage(1500, n).value <= 0.97


def test_coverage_with_a_library():
    assert 0.93 <= simulate.coverage(800, 3, orders=6).value <= 0.97


def test_false_positives_at_the_end():
    assert simulate.power(1500, 5, 1.0).within(0.05)


@pytest.mark.parametrize("looks", [5, 31])
def test_false_positives_at_any_look(looks):
    assert simulate.any_look(500, looks).within(0.05)


def test_naive_peeking_and_bands_of_one_pair_are_as_bad_as_said():
    assert simulate.any_look(300, 31, naive=True).value > 0.08
    assert simulate.one_pair_of_steps(300).value > 0.5


def test_e_process():
    assert simulate.e_process(5000).within(0.05)


def test_power():
    assert simulate.power(500, 5, 1.01).value >= 0.70
    assert simulate.power(500, 5, 1.01, matched=False).value <= 0.30


def test_pooled_multiplier():
    found = simulate.pooled(600)
    assert abs(found.bias) <= 0.001
    assert found.rmse <= 0.007
    assert 0.93 <= found.coverage.value <= 0.98


def test_pooled_multiplier_along_the_ladder():
    found = simulate.pooled_compute(100)
    assert abs(found.bias) <= 0.001
    assert found.rmse <= 0.007
    assert found.coverage.value >= 0.90


def test_trend_size_and_power():
    assert simulate.trends(600, 0.0).within(0.06)
    assert simulate.trends(200, 0.03).value >= 0.95
    assert simulate.trends(200, -0.03).value >= 0.95


@pytest.mark.parametrize("noise", [1.5, 2.0])
def test_noisier_pairs_than_the_library(noise):
    assert simulate.pooled(500, library=6, noise=noise).coverage.value >= 0.92


def test_holm_over_four_scales():
    assert simulate.family_wise(800).within(0.05)


def test_one_seed_is_never_decided(tmp_path):
    for draw in range(3):
        recipe = Recipe(
            scales={"xs": 10**7}, seeds=(0,), variants={"mha": 1.0, "b": 3.0}, rng=draw, with_steps=False
        )
        comparison = compare(write_sweep(tmp_path / str(draw), recipe))
        assert comparison.ladder[0].decision in (Decision.INVALID, Decision.INCONCLUSIVE)


def test_real_null_runs():
    end, look = real.false_positives(300)
    assert end.within(0.08)
    assert look.within(0.05)
