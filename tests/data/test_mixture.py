from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data.mixture import PERIOD, counts, picks

WEIGHTS = st.lists(st.integers(1, 1000), min_size=1, max_size=6)


@given(weights=WEIGHTS)
def test_counts_are_the_largest_remainders(weights):
    found = counts([float(weight) for weight in weights])
    exact = [Fraction(PERIOD * weight, sum(weights)) for weight in weights]
    assert sum(found) == PERIOD
    assert all(abs(count - share) < 1 for count, share in zip(found, exact, strict=True))
    up = [share % 1 for count, share in zip(found, exact, strict=True) if count > share]
    down = [share % 1 for count, share in zip(found, exact, strict=True) if count < share]
    assert not up or not down or min(up) >= max(down) - Fraction(1, 10**9)


def test_only_ratios_count():
    assert counts([1, 3]) == counts([0.25, 0.75]) == [1024, 3072]


@settings(max_examples=20, deadline=None)
@given(weights=WEIGHTS, seed=st.integers(0, 2**31), period=st.integers(0, 10**6))
def test_each_period_holds_the_exact_counts(weights, seed, period):
    number = tuple(counts([float(weight) for weight in weights]))
    source_P = picks(number, seed, period * PERIOD, PERIOD).source_B
    assert tuple(np.bincount(source_P, minlength=len(number))) == number


def test_ranks_count_the_examples_of_a_source_from_the_start():
    number = (1000, 3000, 96)
    found = picks(number, 7, 0, 3 * PERIOD)
    seen = [0, 0, 0]
    for source, rank in zip(found.source_B, found.rank_B, strict=True):
        assert rank == seen[source]
        seen[source] += 1


@pytest.mark.parametrize(("first", "length"), [(0, 1), (4090, 12), (8191, 1), (5000, 9000)])
def test_any_stretch_is_a_part_of_the_whole(first, length):
    whole, part = picks((96, 4000), 1, 0, 4 * PERIOD), picks((96, 4000), 1, first, length)
    assert np.array_equal(part.source_B, whole.source_B[first : first + length])
    assert np.array_equal(part.rank_B, whole.rank_B[first : first + length])


def test_seeds_and_periods_are_arranged_differently():
    first = picks((2048, 2048), 0, 0, PERIOD).source_B
    assert 0.45 < (first == picks((2048, 2048), 0, PERIOD, PERIOD).source_B).mean() < 0.55
    assert 0.45 < (first == picks((2048, 2048), 1, 0, PERIOD).source_B).mean() < 0.55
