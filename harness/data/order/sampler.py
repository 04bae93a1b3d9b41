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


class Examples(Protocol):
    """What a corpus is to its sampler."""

    @property
    def row_length(self) -> int: ...

    def examples(
        self, source: int, data_seed: int, rank_B: Int[np.ndarray, " B"], mine_B: Bool[np.ndarray, " B"]
    ) -> tuple[Int32[np.ndarray, "M T+1"], UInt64[np.ndarray, " B"]]:
        """Of the examples that a run takes from a source as its `rank_B`-th: the rows of those that are mine,
        and the ids of all. Every one once an epoch, each epoch in an order of its own."""
        ...


@dataclass(frozen=True)
class Sampler:
    """Batches of one data seed. Holds no state: any t, in any order, from any thread."""

    corpus: Examples
    size: int
    data_seed: int
    stages: tuple[interleave.Stage, ...]
    mine_B: np.ndarray | None = None
    """Rows that are wanted here, as other processes have the devices of the others; None: all."""

    def batch(self, t: int) -> Batch:
        """The batch of step t, counted from 0; zeros in the rows that are not wanted, but all ids."""
        picks = interleave.picks(self.stages, t * self.size, self.size)
        mine_B = np.ones(self.size, bool) if self.mine_B is None else self.mine_B
        rows_BT = np.zeros((self.size, self.corpus.row_length), np.int32)
        ids_B = np.empty(self.size, np.uint64)
        for s in np.unique(picks.source_B):
            here_B = picks.source_B == s
            made = self.corpus.examples(int(s), self.data_seed, picks.rank_B[here_B], mine_B[here_B])
            rows_BT[here_B & mine_B], ids_B[here_B] = made
        return Batch(rows_BT, ids_B)
