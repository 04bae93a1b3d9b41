"""Ladders of one seed a scale: the scales as a sample, against scipy."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

from harness.compare import compare_curves
from harness.compare.results.verdict_types import Decision
from harness.compare.stats.across_scales import ESTIMAND, across_scales, sign_test
from harness.report.tables.wording import ladder_lines
from tests.compare.numbers import exactly

CURVES = Path(__file__).parents[3] / "shared" / "curves"


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


def ladder_table(seeds: int, shift: int = 0) -> pl.DataFrame:
    """Two variants at five scales; the second one is better everywhere, by more at larger scales."""
    rows = [
        (
            variant,
            f"s{scale}",
            seed,
            100,
            10**6 + int(shift),
            loss + 1e-4 * seed * (scale + 1),
            10 ** (6 + scale),
        )
        for scale in range(5)
        for seed in range(seeds)
        for variant, loss in (("a", curve(scale)), ("b", curve(scale + 0.02 * (1 + scale)) - 1e-5 * seed**2))
    ]
    columns = ["variant", "scale", "seed", "step", "tokens", "loss", "parameters"]
    return pl.DataFrame(rows, columns, orient="row")


def curve(scale: float) -> float:
    return 2.0 + 3.0 * 10 ** (-0.1 * scale)


def test_a_ladder_of_single_seeds_has_a_statement_on_scales_and_none_on_seeds():
    comparison = compare_curves(ladder_table(1), decayed="last")
    (ladder,) = comparison.ladder
    assert ladder.decision is Decision.INVALID
    assert ladder.bet is None
    sample = ladder.across_scales
    assert sample
    log_k = [rung.k.log_k for rung in comparison.rungs if rung.k and rung.k.log_k is not None]
    assert sample.log_k == exactly(np.mean(log_k))
    assert (sample.scales, sample.positive, sample.sign_p) == (5, 5, exactly(2**-4))
    (line,) = [line for line in ladder_lines(ladder) if "one seed each" in line]
    assert "above 1 at 5 of them (sign test p = .062)" in line
    assert ESTIMAND in line
    assert "nothing about other seeds" in line


def test_seeds_take_the_place_of_scales():
    (ladder,) = compare_curves(ladder_table(3), decayed="last").ladder
    assert ladder.across_scales is None


def test_what_else_blocks_blocks_the_scales_too():
    frame = pl.concat([ladder_table(1).filter(variant="a"), ladder_table(1, shift=10**5).filter(variant="b")])
    (ladder,) = compare_curves(frame, decayed="last").ladder
    assert "UNEQUAL_TOKENS" in ladder.flags
    assert ladder.across_scales is None


@pytest.mark.skipif(not CURVES.is_dir(), reason="../shared/curves is not beside this checkout")
@pytest.mark.parametrize(("name", "scales"), [("pythia_lambada", 8), ("openlm_paloma_c4_en", 6)])
def test_public_ladders_of_one_seed(name, scales):
    comparison = compare_curves(CURVES / f"{name}.csv")
    for ladder in comparison.ladder:
        assert ladder.decision is Decision.INVALID
        rungs = [rung for rung in comparison.rungs if rung.variant == ladder.variant]
        log_k = [rung.k.log_k for rung in rungs if rung.k and rung.k.log_k is not None]
        assert ladder.across_scales
        interval = stats.ttest_1samp(log_k, 0.0).confidence_interval(0.95)
        assert ladder.across_scales.scales == len(log_k) == scales
        assert ladder.across_scales.log_low == exactly(interval.low)
        signs = [-np.sign((rung.treatment_loss or 0.0) - (rung.control_loss or 0.0)) for rung in rungs]
        assert ladder.across_scales.positive == signs.count(1)
