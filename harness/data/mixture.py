"""Which source the examples of a run come from.

Examples are numbered from 0 over the whole run. Every period of 4096 of them holds an exact
number from each source, in an order that the data seed decides. The k-th example that a run takes
from a source depends on k alone, so variants with other weights meet the same examples of it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from harness.data.permutation import key_of, permute

PERIOD = 4096


def counts(weights: list[float]) -> list[int]:
    """Examples of each source in a period, by largest remainders (ties: the earlier source)."""
    shares = [PERIOD * weight / sum(weights) for weight in weights]
    whole = [int(share) for share in shares]
    order = sorted(range(len(weights)), key=lambda s: whole[s] - shares[s])
    for s in order[: PERIOD - sum(whole)]:
        whole[s] += 1
    return whole


@dataclass(frozen=True)
class Picks:
    """For each example: its source, and how many examples of that source came before it."""

    source_B: np.ndarray
    rank_B: np.ndarray


def picks(counts: tuple[int, ...], data_seed: int, first: int, length: int) -> Picks:
    """The examples `first` to `first + length - 1` of a run."""
    example_B = np.arange(first, first + length)
    period_B, slot_B = np.divmod(example_B, PERIOD)
    source_B, rank_B = np.empty(length, np.int64), np.empty(length, np.int64)
    for period in range(int(period_B[0]), int(period_B[-1]) + 1):
        here = period_B == period
        source_P, rank_P = _period(counts, data_seed, period)
        source_B[here], rank_B[here] = source_P[slot_B[here]], rank_P[slot_B[here]]
    return Picks(source_B, rank_B + period_B * np.array(counts)[source_B])


@functools.lru_cache(maxsize=16)
def _period(counts: tuple[int, ...], data_seed: int, period: int) -> tuple[np.ndarray, np.ndarray]:
    """The source of each slot of a period, and how many of that source stand before it there."""
    slots = np.arange(PERIOD, dtype=np.uint64)
    place_P = permute(slots, PERIOD, key_of("mixture", data_seed), period).astype(np.int64)
    source_P = np.repeat(np.arange(len(counts)), counts)[place_P]
    rank_P = np.empty(PERIOD, np.int64)
    for s, count in enumerate(counts):
        rank_P[source_P == s] = np.arange(count)
    return source_P, rank_P
