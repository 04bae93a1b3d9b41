"""Readers shared by the runs of one process: opened for the first run, closed after the last."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from harness.config.schema.run import Config
from harness.core.hashing import hash_json
from harness.data.images.image_corpus import ImageCorpus
from harness.data.images.pca_features import PCAFeatures
from harness.data.open_data import open_data
from harness.data.prefetch import Reader
from harness.data.text.corpus import HeldOut


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
        key = hash_json([config.data, config.data_seed, config.scale.batch, config.evaluation.tokens])
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            entry.users += 1
        try:
            with entry.opening:
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
    heldout = corpus.heldout(config.evaluation.tokens)
    features = corpus.pca_features(config.evaluation.tokens) if isinstance(corpus, ImageCorpus) else None
    sampler = corpus.sampler(config.scale.batch, config.data_seed, local_rows_B)
    return DataHandle(Reader(sampler), heldout, features)
