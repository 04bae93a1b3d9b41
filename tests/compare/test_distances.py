"""Estimators over arrays, each against an independent reference or a property that it must have."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import scipy.stats
from scipy.special import rel_entr, softmax

from harness.compare.checkpoints import distances
from harness.compare.checkpoints.diff_types import StepDistance
from harness.compare.checkpoints.distances import (
    compare_tokens,
    compare_weights,
    divergence_point,
    loss_row,
    mean_over_domains,
    param_group,
    prediction_row,
    weight_divergence_point,
)
from harness.compare.results.to_json import to_json
from harness.compare.stats.estimates import Estimand

RNG = np.random.default_rng(0)
A, B = RNG.normal(0, 3, (2, 7, 11)).astype(np.float32)
LOSS_A, LOSS_B = RNG.normal(4.0, 0.3, 40), RNG.normal(4.1, 0.2, 40)


@pytest.mark.parametrize("block", [distances.LOGITS_PER_BLOCK, 22, 1])
def test_kl_is_scipys_relative_entropy(monkeypatch, block):
    monkeypatch.setattr(distances, "LOGITS_PER_BLOCK", block)
    p, q = softmax(A.astype(float), axis=1), softmax(B.astype(float), axis=1)
    found = compare_tokens(A, B)
    np.testing.assert_allclose(found[:, 0], rel_entr(p, q).sum(1), rtol=1e-10)
    np.testing.assert_allclose(found[:, 1], rel_entr(q, p).sum(1), rtol=1e-10)
    assert (found[:, 2] == (A.argmax(1) == B.argmax(1))).all()


def test_kl_knows_no_shift_of_the_logits_and_swaps_with_the_sides():
    np.testing.assert_allclose(compare_tokens(A + 50, B - 9), compare_tokens(A, B), atol=1e-5)
    assert (compare_tokens(B, A) == compare_tokens(A, B)[:, [1, 0, 2]]).all()
    assert (compare_tokens(A, A) == [0, 0, 1]).all()


def test_kl_far_apart_is_finite_and_without_a_number_it_is_none():
    far = np.array([[900.0, 0.0]], np.float32)
    np.testing.assert_allclose(compare_tokens(far, -far), [[900, 900, 0]])
    broken = np.array([[np.nan, 0.0]], np.float32)
    row = to_json(prediction_row("d", 1, compare_tokens(far, broken)))
    assert row["kl_ab"] is row["kl_ba"] is row["agreement"] is None


def test_the_paired_difference_is_scipys():
    row, theirs = loss_row("d", LOSS_A, LOSS_B), scipy.stats.ttest_rel(LOSS_B, LOSS_A)
    interval = theirs.confidence_interval(0.95)
    assert (row.delta.low, row.delta.high) == pytest.approx((interval.low, interval.high), rel=1e-10)
    assert row.better == np.mean(LOSS_B < LOSS_A)
    assert row.delta.estimand is Estimand.trajectory_only
    assert row.delta.p is None
    assert not row.delta.flags


def test_swapped_sides_change_the_sign_exactly():
    one, other = loss_row("d", LOSS_A, LOSS_B), loss_row("d", LOSS_B, LOSS_A)
    assert (one.delta.mean, one.delta.low) == (-other.delta.mean, -other.delta.high)
    assert one.better == pytest.approx(1 - other.better)


def test_two_domains_are_averaged_as_welch_does():
    rows = [loss_row("d", LOSS_A, LOSS_B), loss_row("e", LOSS_A[:9], 3 * LOSS_B[:9])]
    overall = mean_over_domains(rows)
    theirs: Any = scipy.stats.ttest_ind(rows[0].deltas, [-each for each in rows[1].deltas], equal_var=False)
    interval = theirs.confidence_interval(0.95)
    assert overall.delta.low is not None
    assert overall.delta.high is not None
    assert (2 * overall.delta.low, 2 * overall.delta.high) == pytest.approx((interval.low, interval.high))
    assert overall.delta.df == pytest.approx(theirs.df)
    assert overall.delta.mean == pytest.approx(np.mean([cast(float, row.delta.mean) for row in rows]))
    assert overall.loss_b == pytest.approx(np.mean([row.loss_b for row in rows]))
    assert (overall.examples, overall.delta.n) == (49, 49)


def test_no_interval_without_two_examples_and_no_mean_without_numbers():
    single = loss_row("d", [4.0], [4.5])
    assert (single.delta.mean, single.delta.low) == (0.5, None)
    assert mean_over_domains([single, loss_row("e", LOSS_A, LOSS_B)]).delta.low is None
    broken = loss_row("d", [4.0, np.nan], [4.5, 4.6])
    assert broken.delta.mean is None
    assert mean_over_domains([broken, single]).delta.mean is None


def test_weights_by_path():
    a = {"layers.0.w": np.array([3.0, 4.0]), "layers.1.w": np.array([0.0, 2.0]), "only": np.ones(3)}
    b = {"layers.0.w": np.array([3.0, 5.0]), "layers.1.w": np.array([0.0, 2.0]), "x": np.ones(2)}
    found = compare_weights(a, b)
    first, second = (row.distance for row in found.rows)
    assert (first.norm_a, first.relative, first.equal) == (5, 0.2, False)
    assert first.cosine == pytest.approx(29 / (5 * np.sqrt(34)))
    assert (second.relative, second.cosine, second.equal) == (0, 1, True)
    (pooled,) = found.kinds
    assert (pooled.kind, pooled.layers, pooled.low, pooled.high) == ("layers.*.w", 2, 0, 0.2)
    assert pooled.distance.relative == pytest.approx(1 / np.sqrt(29))
    assert found.total == pooled.distance
    assert [(each.path, each.shape_a, each.shape_b) for each in found.one_sided] == [
        ("only", (3,), None),
        ("x", None, (2,)),
    ]


def test_weights_that_are_zero_have_no_direction():
    zero, some = np.zeros(2), np.ones(2)
    for a, b, relative in ((zero, some, None), (zero, zero, 0), (some, zero, 1)):
        (row,) = compare_weights({"w": a}, {"w": b}).rows
        assert row.distance.relative == relative
        assert row.distance.cosine is None
    (row,) = compare_weights({"w": zero}, {"w": -zero}).rows
    assert (row.distance.relative, row.distance.equal) == (0, False)


def test_weights_that_are_no_numbers_are_at_no_distance():
    total = compare_weights({"w": np.ones(2)}, {"w": np.array([1.0, np.nan])}).total
    assert to_json(total)["relative"] is to_json(total)["cosine"] is None
    assert weight_divergence_point([StepDistance(5, total)]).relative == 5


def test_a_kind_is_a_path_without_its_numbers():
    assert param_group("layers.12.experts.3.up") == "layers.*.experts.*.up"
    assert param_group("norm2.gain") == "norm2.gain"


def test_runs_are_compared_at_the_steps_that_both_have():
    a, b = np.arange(1.0, 11.0), np.arange(3.0, 13.0)
    found = divergence_point(np.arange(1, 11), a, np.arange(3, 13), b)
    assert (found.compared, found.first, found.last, found.bitwise, found.relative) == (8, 3, 10, None, None)
    b[5] *= 1 + 5e-7
    b[7] *= 1 + 5e-6
    found = divergence_point(np.arange(1, 11), a, np.arange(3, 13), b)
    assert (found.bitwise, found.relative) == (8, 10)


def test_a_loss_that_is_no_number_is_far_from_one_that_is():
    steps, fine, broken = np.arange(3), np.array([3.0, 2.0, 1.0]), np.array([3.0, np.nan, np.nan])
    assert divergence_point(steps, fine, steps, broken).relative == 1
    assert divergence_point(steps, broken, steps, broken).bitwise is None


def test_runs_with_no_step_in_common_are_not_compared():
    found = divergence_point(np.arange(3), np.ones(3), np.arange(5, 7), np.ones(2))
    assert (found.compared, found.first, found.bitwise) == (0, None, None)
