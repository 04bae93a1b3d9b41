"""Curriculum by length: the examples that a run will read, those with short documents first.

They are the first ones of the random order, so runs of other orders read the same examples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Int64, UInt64

from harness.core.progress.report import report
from harness.data.order.permutation import permute

SORTED_AT_ONCE = 2**20
"""Examples that are measured at a time, which bounds the memory."""

Measure = Callable[[Int64[np.ndarray, " B"]], np.ndarray]
"""Function from examples to the lengths that they are sorted by."""


@dataclass(frozen=True)
class SortedExamples:
    """First examples of an order, the shorter ones first; of equal ones the earlier in that order."""

    row_N: Int[np.ndarray, " N"]
    """Example at each place."""

    @classmethod
    def of_first(cls, count: int, n: int, key: int, measure: Measure) -> SortedExamples:
        """Return the first `count` examples of the random order of `n`. They may be more than an epoch."""
        row_N, length_N = np.empty(count, np.min_scalar_type(n)), np.empty(count, np.float32)
        for first in range(0, count, SORTED_AT_ONCE):
            report("sorts examples by the length of their documents", first, count)
            end = min(first + SORTED_AT_ONCE, count)
            epoch_B, index_B = np.divmod(np.arange(first, end), n)
            row_B = permute(index_B, n, key, epoch_B).astype(np.int64)
            row_N[first:end], length_N[first:end] = row_B, measure(row_B)
        return cls(row_N[np.argsort(length_N, kind="stable")])

    def replace_first(self, row_B: UInt64[np.ndarray, " B"], rank_B: Int[np.ndarray, " B"]) -> None:
        """Replace the examples `row_B` of the places `rank_B` where these are sorted."""
        is_sorted_B = rank_B < len(self.row_N)
        row_B[is_sorted_B] = self.row_N[rank_B[is_sorted_B]]


def mean_document_lengths(
    start_D: Int64[np.ndarray, " D"], tokens: int, first_B: Int64[np.ndarray, " B"], count: int
) -> Float[np.ndarray, " B"]:
    """Return the mean length of the documents that have a token among the `count` from `first_B` on.
    `tokens`: number of tokens of all documents."""
    document_B = np.searchsorted(start_D, first_B, side="right") - 1
    last_B = np.searchsorted(start_D, first_B + count, side="left") - 1
    end_B = np.full(len(first_B), tokens)
    ends_before = last_B + 1 < len(start_D)
    end_B[ends_before] = start_D[last_B[ends_before] + 1]
    return (end_B - start_D[document_B]) / (last_B - document_B + 1)
