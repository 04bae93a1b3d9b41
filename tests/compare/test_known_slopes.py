"""Equivalence without a slope, slopes given by hand, and a control that was trained for another length."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from harness.compare import compare_curves
from harness.compare.results.verdict_types import Decision, EquivalenceUnit, Ladder
from harness.compare.stats.control_slope import horizon_slope, length_slope
from harness.core.errors import UserError
from tests.compare.numbers import exactly

TOKENS = 1_000


def table(variant: str, losses, tokens: int = TOKENS, scale: str = "s") -> pl.DataFrame:
    rows = [(variant, scale, seed, tokens, tokens, loss) for seed, loss in enumerate(losses)]
    columns = ["variant", "scale", "seed", "step", "tokens", "loss"]
    return pl.DataFrame(rows, columns, orient="row")


NOISE = 0.001 * np.array([1.0, -1.0, 0.5, -0.5, 0.0])
A = table("a", 3.0 + NOISE)
SAME = table("b", 3.0001 + NOISE[::-1])


def only(tables, **options) -> Ladder:
    (ladder,) = compare_curves(tables, decayed="last", **options).ladder
    return ladder


def test_equal_losses_are_equivalent_by_a_margin_in_nats_and_not_without_one():
    assert only([A, SAME]).decision is Decision.INCONCLUSIVE
    ladder = only([A, SAME], margin_nats=0.005)
    assert ladder.decision is Decision.EQUIVALENT
    assert ladder.largest_scale
    assert ladder.largest_scale.equivalence
    assert ladder.largest_scale.equivalence.unit is EquivalenceUnit.loss
    assert only([A, SAME], margin_nats=0.0005).decision is Decision.INCONCLUSIVE


def test_the_margin_in_nats_never_makes_a_clear_difference_equal():
    assert only([A, table("b", 2.99 + NOISE[::-1])], margin_nats=0.1).decision is Decision.B_BETTER


def test_a_slope_given_by_hand_gives_k():
    better = table("b", 2.98 + NOISE)
    ladder = only([A, better], slope=0.25)
    assert ladder.largest_scale
    assert ladder.largest_scale.k
    assert ladder.largest_scale.k.log_k == exactly(-math.log(1 - 0.02 * 0.35 / 0.25) / 0.35)
    assert "SLOPE_GIVEN" in ladder.flags
    assert "NO_SLOPE" not in ladder.flags
    assert only([A, SAME], slope=0.25).decision is Decision.EQUIVALENT


@pytest.mark.parametrize("ratio", [0.5, 0.8, 1.05, 2.0])
def test_a_control_of_another_length_gives_the_slope_at_its_end(ratio):
    def curve(tokens):
        return 2.0 + 10 * tokens**-0.35

    better = table("b", curve(1.1 * TOKENS) + NOISE)
    other = table("other", curve(ratio * TOKENS) + NOISE, int(ratio * TOKENS))
    comparison = compare_curves(
        [table("a", curve(TOKENS) + NOISE), better, other], decayed="last", horizon="other"
    )
    (ladder,) = comparison.ladder
    assert ladder.variant == "b"
    assert ladder.largest_scale
    assert ladder.largest_scale.k
    assert ladder.largest_scale.k.k == pytest.approx(1.1, rel=1e-3)
    assert any("'other', which is no treatment" in note for note in comparison.notes)
    assert {row.variant for row in comparison.fairness} == {"a", "b"}


def test_two_lengths_by_hand():
    end, other = np.array([3.00, 3.02]), np.array([2.90, 2.92, 2.94])
    slope = length_slope(end, other, 2.0, exponent=0.35)
    variance = (2 * 0.01**2 + 2 * 0.02**2) / 3 * (1 / 2 + 1 / 3)
    bend = 0.35 * math.log(2) / (1 - 2**-0.35)
    assert slope.g == exactly(0.09 / math.log(2) * bend)
    assert slope.se == exactly(math.sqrt(variance) / math.log(2) * bend)
    assert slope.df == 3
    shorter, branch = length_slope(end, end + 0.1, 0.5), horizon_slope(end + 0.1, end, 2.0)
    assert (shorter.g, shorter.shared_errors) == (exactly(branch.g), exactly(branch.shared_errors))
    assert length_slope(end[:1], other[:1], 2.0).se is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slope": -0.2}, "slope=-0.2: give the fall"),
        ({"slope": 0.2, "horizon": "b"}, "horizon=b: slope=0.2 gives the slope already"),
        ({"horizon": "c"}, "horizon=c: no such treatment"),
        ({"horizon": "b"}, "'a' is the only variant"),
        ({"margin_nats": 0.0}, "margin_nats=0: must lie above 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(UserError, match=message):
        compare_curves([A, SAME, table("d", 3.0 + NOISE)][: 2 + ("slope" in options)], **options)


def test_a_horizon_of_equal_length_is_none():
    with pytest.raises(UserError, match="Name the variant that is the control trained longer or shorter"):
        compare_curves([A, SAME, table("c", 2.9 + NOISE)], decayed="last", horizon="c")


CURVES = Path(__file__).parents[3] / "shared" / "curves"


@pytest.mark.skipif(not CURVES.is_dir(), reason="../shared/curves is not beside this checkout")
def test_public_records_with_a_slope():
    assert only([CURVES / "varlen_combined.csv"], slope=0.23).decision is Decision.EQUIVALENT
    longer = table("longer", np.full(10, 3.27875), 1480, "124M")
    ladder = only([CURVES / "mudd_1430.csv", longer], horizon="longer")
    assert ladder.largest_scale
    assert ladder.largest_scale.k
    k = ladder.largest_scale.k
    assert (k.k, k.low, k.high) == pytest.approx((1.037, 1.030, 1.045), abs=1e-3)
