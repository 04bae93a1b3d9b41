"""Batch t of a corpus, whatever its examples are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Int, Int32, UInt64

from harness.data.order import interleave


@dataclass(frozen=True)
class Batch:
    tokens_BT: Int32[np.ndarray, "B T+1"]
    ids_B: UInt64[np.ndarray, " B"]
    """Which examples these are: equal ids mean equal rows."""


class ExampleSource(Protocol):
    """What a corpus is to its sampler."""

    @property
    def row_length(self) -> int: ...

    def examples(
        self, source: int, data_seed: int, rank_B: Int[np.ndarray, " B"], local_rows_B: Bool[np.ndarray, " B"]
    ) -> tuple[Int32[np.ndarray, "M T+1"], UInt64[np.ndarray, " B"]]:
        """Of the examples that a run takes from a source as its `rank_B`-th: the rows of those that are mine,
        and the ids of all. Every one once an epoch, each epoch in an order of its own."""
        ...


@dataclass(frozen=True)
class Sampler:
    """Batches of one data seed. Holds no state: any t, in any order, from any thread."""

    corpus: ExampleSource
    batch_size: int
    data_seed: int
    stages: tuple[interleave.Stage, ...]
    local_rows_B: np.ndarray | None = None
    """Rows that are wanted here, as other processes have the devices of the others; None: all."""

    def batch(self, t: int) -> Batch:
        """The batch of step t, counted from 0; zeros in the rows that are not wanted, but all ids."""
        assignment = interleave.assign_sources(self.stages, t * self.batch_size, self.batch_size)
        local_rows_B = np.ones(self.batch_size, bool) if self.local_rows_B is None else self.local_rows_B
        rows_BT = np.zeros((self.batch_size, self.corpus.row_length), np.int32)
        ids_B = np.empty(self.batch_size, np.uint64)
        for s in np.unique(assignment.source_B):
            in_source_B = assignment.source_B == s
            examples = self.corpus.examples(
                int(s), self.data_seed, assignment.rank_B[in_source_B], local_rows_B[in_source_B]
            )
            rows_BT[in_source_B & local_rows_B], ids_B[in_source_B] = examples
        return Batch(rows_BT, ids_B)
