"""Orders of examples: pure functions that meet every example once an epoch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import chdtrc

from harness.data.order import curriculum
from harness.data.order.curriculum import SortedExamples, mean_document_lengths
from harness.data.order.example_order import GROUP_BLOCKS, OrderSpec, examples_at
from harness.data.order.permutation import permute


@settings(max_examples=100, deadline=None)
@given(
    n=st.integers(1, 3000),
    block=st.integers(1, 400),
    key=st.integers(0, 2**64 - 1),
    epoch=st.integers(0, 2**30),
)
def test_every_example_is_met_once_in_blocks(n, block, key, epoch):
    assert sorted(examples_at(OrderSpec(block), np.arange(n), n, key, epoch)) == list(range(n))


def test_without_blocks_the_order_is_the_permutation():
    index, epoch = np.arange(500) % 77, np.arange(500) // 77
    assert np.array_equal(examples_at(OrderSpec(), index, 77, 5, epoch), permute(index, 77, 5, epoch))


def test_a_place_has_its_example_whatever_is_asked_with_it():
    order, epoch = OrderSpec(8), np.arange(1000) % 5
    together = examples_at(order, np.arange(1000), 1000, 3, epoch)
    alone = [examples_at(order, np.array([i]), 1000, 3, i % 5)[0] for i in range(1000)]
    assert np.array_equal(together, alone)


def test_steps_of_some_time_read_from_few_places():
    """The examples of a group lie in its blocks, and a step's do not lie beside each other."""
    n, block, batch = 10**9, 1024, 512
    group = GROUP_BLOCKS * block
    row = examples_at(OrderSpec(block), np.arange(3 * group), n, 7).astype(np.int64)
    for first in range(0, 3 * group, group):
        places = np.sort(row[first : first + group])
        starts = places[np.flatnonzero(np.diff(places, prepend=-2) > 1)]
        assert len(starts) <= GROUP_BLOCKS
        for step in range(first, first + group, batch):
            of_step = np.sort(row[step : step + batch])
            assert np.mean(np.diff(of_step) == 1) < 0.1


@pytest.mark.parametrize("n", [50, 96])
def test_every_example_is_met_at_every_place(n):
    """Over keys the place of an example is even, also where the last block is shorter."""
    places = np.array([np.argsort(examples_at(OrderSpec(3), np.arange(n), n, key))[0] for key in range(2000)])
    counts = np.bincount(places, minlength=n)
    expected = len(places) / n
    assert chdtrc(n - 1, ((counts - expected) ** 2 / expected).sum()) > 1e-4


def test_keys_and_epochs_order_anew():
    orders = [
        examples_at(OrderSpec(4), np.arange(1000), 1000, key, epoch) for key in (1, 2) for epoch in (0, 1)
    ]
    same = [np.mean(a == b) for i, a in enumerate(orders) for b in orders[:i]]
    assert max(same) < 0.02


def test_the_order_in_blocks_is_a_promise():
    """Changing it changes what every recorded run with order=blocks has read."""
    found = examples_at(OrderSpec(3), np.arange(8), 100, 1, 2)
    assert found.tolist() == [25, 93, 98, 97, 34, 96, 1, 63]


@pytest.mark.parametrize("count", [1, 40, 100, 250])
def test_a_curriculum_reads_the_first_of_the_random_order_by_length(monkeypatch, count):
    monkeypatch.setattr(curriculum, "SORTED_AT_ONCE", 7)
    n, key = 100, 5
    length_N = np.random.default_rng(0).integers(1, 9, n)
    found = SortedExamples.of_first(count, n, key, lambda row_B: length_N[row_B]).row_N
    index = np.arange(count)
    random_order = permute(index % n, n, key, index // n).astype(int).tolist()
    assert found.tolist() == sorted(random_order, key=lambda row: length_N[row])


def test_mean_lengths_are_those_of_the_documents_that_a_window_touches():
    draw = np.random.default_rng(1)
    length_D = draw.integers(1, 30, 60)
    start_D = np.cumsum(length_D) - length_D
    document_N = np.repeat(np.arange(60), length_D)
    first_B = np.arange(0, len(document_N) - 17, 16)
    expected = [length_D[np.unique(document_N[first : first + 17])].mean() for first in first_B]
    found = mean_document_lengths(start_D, len(document_N), first_B, 17)
    np.testing.assert_allclose(found, expected)
