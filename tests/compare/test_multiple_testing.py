"""Holm, equivalence and the sign-flip test, against statsmodels and the whole enumeration."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from statsmodels.stats.multitest import multipletests

from harness.compare.stats import multiple_testing, paired_effects
from tests.compare.numbers import exactly


def test_holm_is_statsmodels():
    p = [0.001, 0.04, 0.03, 0.2, 0.012]
    theirs: Any = multipletests(p, method="holm")
    assert multiple_testing.holm(p) == exactly(list(theirs[1]))


def test_holm_counts_what_is_missing_and_its_levels_agree():
    assert multiple_testing.holm([0.01, None, None]) == [pytest.approx(0.03), None, None]
    assert multiple_testing.holm([0.01], family=4) == [pytest.approx(0.04)]
    p = [0.001, 0.02, 0.03, 0.2]
    rejected = [value < 0.05 for value in multiple_testing.holm(p)]
    assert rejected == [
        value < level for value, level in zip(p, multiple_testing.holm_levels(p), strict=True)
    ]


def test_tost_is_statsmodels():
    rng = np.random.default_rng(0)
    d = rng.normal(0.001, 0.002, 9)
    found = paired_effects.effect_from_deltas(d)
    theirs = sm.stats.DescrStatsW(d).ttost_mean(-0.004, 0.004)[0]
    assert multiple_testing.tost(found.mean, found.se, found.df, 0.004) == exactly(theirs)


def test_sign_flip_is_the_whole_enumeration():
    d = [np.array([0.3, -0.1, 0.2]), np.array([0.5, 0.4])]
    flat = np.concatenate([d[0] / 3, d[1] / 2])
    sums = [abs(np.dot(signs, flat)) for signs in itertools.product([-1, 1], repeat=5)]
    assert multiple_testing.sign_flip(d) == pytest.approx(np.mean(np.array(sums) >= abs(flat.sum()) - 1e-12))


@pytest.mark.parametrize(("pairs", "smallest"), [(3, 0.25), (5, 0.0625), (9, 0.00390625)])
def test_smallest_attainable_p(pairs, smallest):
    assert multiple_testing.smallest_p(pairs) == smallest
    assert multiple_testing.sign_flip([np.ones(pairs)]) == smallest


def test_sign_flip_of_many_pairs_is_drawn_and_agrees_with_its_limit():
    rng = np.random.default_rng(0)
    d = rng.normal(0.1, 1.0, 60)
    limit = math.erfc(abs(d.sum()) / math.sqrt(2 * (d**2).sum()))
    assert multiple_testing.sign_flip([d]) == pytest.approx(limit, abs=0.02)
