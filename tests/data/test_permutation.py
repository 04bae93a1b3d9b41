import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import chdtrc

from harness.data.order.permutation import make_key, permute


@settings(max_examples=80, deadline=None)
@given(n=st.integers(1, 3000), key=st.integers(0, 2**64 - 1), epoch=st.integers(0, 2**40))
def test_every_index_is_met_once(n, key, epoch):
    assert sorted(permute(np.arange(n), n, key, epoch)) == list(range(n))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 4095, 4096, 4097, 99_991, 100_489])
def test_every_index_is_met_once_around_squares_and_primes(n):
    assert np.array_equal(np.sort(permute(np.arange(n), n, 7)), np.arange(n))


def test_an_index_goes_where_it_goes_whatever_is_asked_with_it():
    together = permute(np.arange(1000), 1000, 3, np.arange(1000) % 5)
    alone = [permute(np.array([i]), 1000, 3, i % 5)[0] for i in range(1000)]
    assert np.array_equal(together, alone)


def test_large_domains_stay_inside():
    n = 10**12 + 39
    out = permute(np.arange(n - 1000, n), n, 11)
    assert out.max() < n
    assert len(set(out.tolist())) == 1000


@pytest.mark.parametrize("n", [7, 50])
def test_pairs_of_places_are_even_over_keys(n):
    """Where indices 0 and 1 go together, over many keys: chi-square against equal chances."""
    draws = 400 * n * (n - 1) // 40
    first = permute(np.zeros(draws), n, 5, np.arange(draws)).astype(int)
    second = permute(np.ones(draws), n, 5, np.arange(draws)).astype(int)
    seen = np.bincount(first * n + second, minlength=n * n).reshape(n, n)
    expected = draws / (n * (n - 1))
    chi2 = ((seen - expected) ** 2 / expected)[~np.eye(n, dtype=bool)].sum()
    assert chdtrc(n * (n - 1) - 1, chi2) > 1e-4


def test_the_order_is_a_promise():
    """Another order would silently change what every recorded seed means."""
    assert permute(np.arange(10), 10, make_key("order", 0, "prose")).tolist() == [
        6,
        2,
        3,
        8,
        0,
        7,
        5,
        9,
        4,
        1,
    ]
