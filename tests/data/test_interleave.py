from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data.order.interleave import PERIOD, Stage, assign_sources, counts_per_period, counts_until


def weights_of(sources: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, 1000), min_size=sources, max_size=sources).filter(any)


WEIGHTS = st.integers(1, 6).flatmap(weights_of)
MIXES = st.integers(1, 6).flatmap(lambda n: st.lists(weights_of(n), min_size=1, max_size=3))


def stage(weights: list[int], first: int = 0) -> Stage:
    return Stage(first, tuple(counts_per_period([float(weight) for weight in weights])))


@given(weights=WEIGHTS)
def test_counts_are_the_largest_remainders(weights):
    found = counts_per_period([float(weight) for weight in weights])
    exact = [Fraction(PERIOD * weight, sum(weights)) for weight in weights]
    assert sum(found) == PERIOD
    assert all(abs(count - share) < 1 for count, share in zip(found, exact, strict=True))
    up = [share % 1 for count, share in zip(found, exact, strict=True) if count > share]
    down = [share % 1 for count, share in zip(found, exact, strict=True) if count < share]
    assert not up or not down or min(up) >= max(down) - Fraction(1, 10**9)


def test_only_ratios_count():
    assert counts_per_period([1, 3]) == counts_per_period([0.25, 0.75]) == [1024, 3072]


@settings(max_examples=30, deadline=None)
@given(mixes=MIXES, lengths=st.tuples(*[st.integers(1, 5000)] * 2))
def test_every_prefix_of_every_stage_has_the_mix_to_one_example(mixes, lengths):
    """Counted example by example."""
    firsts = [0, lengths[0], sum(lengths)]
    stages = [stage(mix, first) for mix, first in zip(mixes, firsts, strict=False)]
    source_N = assign_sources(stages, 0, stages[-1].first + 5000).source_B
    for here, end in zip(stages, [*(later.first for later in stages[1:]), len(source_N)], strict=True):
        drawn_N = source_N[here.first : end]
        n_N = np.arange(1, len(drawn_N) + 1)
        for s, count in enumerate(here.counts):
            assert np.all(np.abs(PERIOD * np.cumsum(drawn_N == s) - count * n_N) < PERIOD)


def test_a_period_holds_the_exact_counts():
    here = stage([3, 1, 0, 90])
    for period in (0, 1, 10**6):
        source_P = assign_sources([here], period * PERIOD, PERIOD).source_B
        assert tuple(np.bincount(source_P, minlength=4)) == here.counts


STAGES = (Stage(0, (1000, 3000, 96)), Stage(4500, (0, 96, 4000)), Stage(4600, (4000, 96, 0)))


def test_ranks_count_the_examples_of_a_source_from_the_start():
    found = assign_sources(STAGES, 0, 3 * PERIOD)
    seen = [0, 0, 0]
    for n, (source, rank) in enumerate(zip(found.source_B, found.rank_B, strict=True)):
        assert rank == seen[source]
        assert n % 97 or counts_until(STAGES, np.array([n])).tolist() == [seen]
        seen[source] += 1


@pytest.mark.parametrize(("first", "length"), [(0, 1), (4090, 12), (4499, 102), (8191, 1), (5000, 9000)])
def test_any_stretch_is_a_part_of_the_whole(first, length):
    whole, part = assign_sources(STAGES, 0, 4 * PERIOD), assign_sources(STAGES, first, length)
    assert np.array_equal(part.source_B, whole.source_B[first : first + length])
    assert np.array_equal(part.rank_B, whole.rank_B[first : first + length])


def test_a_run_of_any_length_is_counted_without_being_read():
    """10^15 examples, near the end of a period."""
    n = 10**15 + 4095 - 10**15 % PERIOD
    (drawn,) = counts_until([stage([1, 1])], np.array([n]))
    assert abs(int(drawn[0]) - n / 2) < 1
    assert drawn.sum() == n
