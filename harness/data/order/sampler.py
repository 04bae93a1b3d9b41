"""Sampler of batch t of a corpus, for text and images alike."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Int32, UInt64

from harness.data.order import interleave
from harness.data.order.mixture_schedule import MixSchedule

BLOCK_STEPS, BLOCK_TOKENS, KEPT_BLOCKS = 32, 2**16, 2
"""Steps and tokens that are gathered at once at most, and blocks that a sampler keeps."""


@dataclass(frozen=True)
class Batch:
    """Rows and ids of one batch."""

    tokens_BT: Int32[np.ndarray, "B T+1"]
    ids_B: UInt64[np.ndarray, " B"]
    """Ids of the examples; equal ids mean equal rows."""


class Corpus(ABC):
    """A corpus that a sampler can draw from."""

    schedule: MixSchedule
    """Mixes of the run that reads it."""

    @property
    @abstractmethod
    def row_length(self) -> int:
        """Number of int32 values of a row."""

    @abstractmethod
    def examples(
        self, source: int, data_seed: int, rank_B: Int[np.ndarray, " B"], local_rows_B: Bool[np.ndarray, " B"]
    ) -> tuple[Int32[np.ndarray, "M T+1"], UInt64[np.ndarray, " B"]]:
        """Return the examples that a run draws from `source` at positions `rank_B`: rows only where
        `local_rows_B` is true, ids for all. Each epoch reads every example once, in its own order."""

    def pca_features(self, tokens: int) -> Any:
        """Return features that samples are compared in; None for data that nothing draws."""
        return None

    def sampler(self, batch: int, data_seed: int, local_rows_B: np.ndarray | None = None) -> Sampler:
        """Return the sampler of `batch` rows per step. Raises UserError for a stage below one step."""
        return Sampler(self, batch, data_seed, self.schedule.stages(batch), local_rows_B)


@dataclass(frozen=True)
class Sampler:
    """Batches of one data seed. Any step, in any order, from any thread: a batch depends on its step alone.

    Small batches are gathered some at a time, since a few large array operations take less than many small
    ones.
    """

    corpus: Corpus
    batch_size: int
    data_seed: int
    stages: tuple[interleave.Stage, ...]
    local_rows_B: np.ndarray | None = None
    """Mask of the rows that this process feeds to its devices; None: all rows."""
    _blocks: OrderedDict[int, Batch] = field(default_factory=OrderedDict, compare=False, repr=False)
    """Last blocks of batches that were gathered, by their first step."""
    _lock: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    def batch(self, t: int) -> Batch:
        """Return the batch of step t, counted from 0: zeros in other processes' rows, but all ids."""
        steps = max(1, min(BLOCK_STEPS, BLOCK_TOKENS // (self.batch_size * self.corpus.row_length)))
        first = t - t % steps
        with self._lock:
            block = self._blocks.get(first)
        if block is None:
            block = self._gather(first, steps)
            with self._lock:
                self._blocks[first] = block
                if len(self._blocks) > KEPT_BLOCKS:
                    self._blocks.popitem(last=False)
        rows = slice((t - first) * self.batch_size, (t - first + 1) * self.batch_size)
        return Batch(block.tokens_BT[rows], block.ids_B[rows])

    def _gather(self, first: int, steps: int) -> Batch:
        """Return the batches of `steps` steps as one."""
        size = steps * self.batch_size
        assignment = interleave.assign_sources(self.stages, first * self.batch_size, size)
        local_B = np.ones(self.batch_size, bool) if self.local_rows_B is None else self.local_rows_B
        local_B = np.tile(local_B, steps)
        rows_BT = np.zeros((size, self.corpus.row_length), np.int32)
        ids_B = np.empty(size, np.uint64)
        for s in np.unique(assignment.source_B):
            in_source_B = assignment.source_B == s
            rank_B = assignment.rank_B[in_source_B]
            examples = self.corpus.examples(int(s), self.data_seed, rank_B, local_B[in_source_B])
            rows_BT[in_source_B & local_B], ids_B[in_source_B] = examples
        return Batch(rows_BT, ids_B)
