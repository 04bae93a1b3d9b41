"""Readers of batches: gathered ahead of the fastest run, and shared by the runs that read the same data."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from harness.config.schema.run import Config
from harness.core.hashing import hash_json
from harness.core.progress.waiting import hold_thread_lock
from harness.data.data_format import StepReader
from harness.data.images.pca_features import PCAFeatures
from harness.data.open_data import heldout_rows, open_data
from harness.data.order.sampler import Batch
from harness.data.text.corpus import HeldOut

PREFETCH_BATCHES = 4
"""Number of batches gathered ahead of the fastest run."""
MAX_CACHED_BATCHES = 32
"""Number of batches kept for slower runs. Older ones are gathered again when asked for."""


class Reader:
    """Batches by step, for any number of threads."""

    def __init__(self, sampler: StepReader) -> None:
        self.num_gathered = 0
        """Number of batches gathered so far."""
        self._sampler = sampler
        self._batches: OrderedDict[int, Future[Batch]] = OrderedDict()
        self._furthest_step = -PREFETCH_BATCHES - 1
        """Furthest step requested; initially so low that nothing is prefetched."""
        self._next_step = 0
        """Next step that the thread gathers."""
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read_ahead, name="prefetch", daemon=True)
        self._thread.start()

    def get(self, t: int) -> Batch:
        """Return the batch of step t, read-only. Raises the gathering error; a second call tries again."""
        with self._changed:
            if self._closed:
                raise RuntimeError("the reader is closed")
            batch, is_new = self._slot(t)
            self._furthest_step = max(self._furthest_step, t)
            self._next_step = max(self._next_step, self._furthest_step + 1)
            self._changed.notify_all()
        if is_new:
            self._gather(t, batch)
        try:
            return batch.result()
        except BaseException:
            with self._changed:
                if self._batches.get(t) is batch:
                    del self._batches[t]
            raise

    def close(self) -> None:
        """Stop the thread. A second call does nothing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _read_ahead(self) -> None:
        while True:
            with self._changed:
                while not self._closed and self._next_step > self._furthest_step + PREFETCH_BATCHES:
                    self._changed.wait()
                if self._closed:
                    return
                t = self._next_step
                self._next_step += 1
                batch, _ = self._slot(t)  # always new: no run has requested it
            self._gather(t, batch)

    def _slot(self, t: int) -> tuple[Future[Batch], bool]:
        """Return the future of a batch, and whether it is new, so that the caller must gather it."""
        is_new = t not in self._batches
        batch = self._batches.setdefault(t, Future())
        self._batches.move_to_end(t)
        if len(self._batches) > MAX_CACHED_BATCHES:
            self._batches.popitem(last=False)
        self.num_gathered += is_new
        return batch, is_new

    def _gather(self, t: int, batch: Future[Batch]) -> None:
        try:
            read = self._sampler.batch(t)
            for array in (read.tokens_BT, read.ids_B):
                array.setflags(write=False)  # runs share it
            batch.set_result(read)
        except BaseException as error:  # an interrupted reader must not block other runs
            batch.set_exception(error)


@dataclass(frozen=True)
class DataHandle:
    """Data of a config: batches by step, held-out rows, and image features to compare samples with."""

    reader: Reader
    heldout: Mapping[str, HeldOut]
    features: PCAFeatures | None


@dataclass
class _Entry:
    opening: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0
    handle: DataHandle | None = None


class SharedReaders:
    """Open readers by config, one for all runs that read the same data; for any number of threads."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._lock = threading.Lock()

    @contextmanager
    def open(self, config: Config, local_rows_B: np.ndarray | None = None) -> Iterator[DataHandle]:
        """Open, or share, the reader of this config; concurrent callers with the same config wait for the
        first. `local_rows_B` selects this process's rows (None: all)."""
        # Runs with this in common read the same batches and the same held-out tokens.
        node = config.evaluation
        heldout_keys = [node.tokens, node.sets, node.decontaminate]
        key = hash_json([config.data, config.data_seed, config.scale.batch, heldout_keys])
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            entry.users += 1
        try:
            with hold_thread_lock(entry.opening, "waits for data that another run opens"):
                entry.handle = entry.handle or _open_handle(config, local_rows_B)
            yield entry.handle
        finally:
            self._release(key, entry)

    def _release(self, key: str, entry: _Entry) -> None:
        with self._lock:
            entry.users -= 1
            if entry.users:
                return
            del self._entries[key]
        if entry.handle is not None:
            entry.handle.reader.close()


def _open_handle(config: Config, local_rows_B: np.ndarray | None) -> DataHandle:
    corpus = open_data(config.data)
    heldout = heldout_rows(config, corpus)
    features = corpus.pca_features(config.evaluation.tokens)
    sampler = corpus.sampler(config.scale.batch, config.data_seed, local_rows_B)
    return DataHandle(Reader(sampler), heldout, features)
