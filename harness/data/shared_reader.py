"""What the runs of one process read: opened with the first run that needs it, closed with the last."""

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
    """Batches by step, each gathered once for all runs that ask for it; what is held out; of images, the
    real ones that samples are measured by."""

    reader: Reader
    heldout: Mapping[str, HeldOut]
    features: PCAFeatures | None


@dataclass
class _Entry:
    opening: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0
    handle: DataHandle | None = None


class SharedReaders:
    """For any number of threads. So many readers are open as runs at work read different things."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._lock = threading.Lock()

    @contextmanager
    def open(self, config: Config, local_rows_B: np.ndarray | None = None) -> Iterator[DataHandle]:
        """What this config reads, of each batch the rows `mine_B` alone (None: all). Whoever comes while
        another opens the same waits for it alone."""
        key = _key(config)
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


def _key(config: Config) -> str:
    """Runs with this in common consume the same batches, and are evaluated on the same tokens."""
    return hash_json([config.data, config.data_seed, config.scale.batch, config.evaluation.tokens])


def _open_handle(config: Config, local_rows_B: np.ndarray | None) -> DataHandle:
    corpus = open_data(config.data)
    heldout = corpus.heldout(config.evaluation.tokens)
    gallery = corpus.pca_features(config.evaluation.tokens) if isinstance(corpus, ImageCorpus) else None
    return DataHandle(
        Reader(corpus.sampler(config.scale.batch, config.data_seed, local_rows_B)), heldout, gallery
    )
