"""Tails and exact tests against SciPy."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import scipy.stats

from harness.compare.stats import distributions
from tests.compare.numbers import exactly


@pytest.mark.parametrize("table", [(3, 9, 0, 9), (1, 3, 2, 7), (0, 5, 0, 5), (5, 5, 0, 5)])
def test_fisher_is_scipys(table):
    hits, n, other, m = table
    theirs: Any = scipy.stats.fisher_exact([[hits, n - hits], [other, m - other]])
    assert distributions.fisher_exact(*table) == exactly(theirs.pvalue)


def test_tails_are_scipys():
    for t, df in itertools.product([0.0, 0.3, 2.1, 40.0, -3.0], [1, 2.5, 30, math.inf]):
        dist = scipy.stats.t(df) if math.isfinite(df) else scipy.stats.norm
        assert distributions.t_two_sided_p(t, df) == exactly(2 * dist.sf(abs(t)))
        assert distributions.t_sf(t, df) == exactly(dist.sf(t))
    assert distributions.f_sf(2.3, 6, 18) == exactly(scipy.stats.f.sf(2.3, 6, 18))
    theirs = scipy.stats.binomtest(3, 40).proportion_ci(0.95, "exact")
    assert distributions.clopper_pearson(3, 40) == exactly((theirs.low, theirs.high))
