"""What the runs of one process read: opened with the first run that needs it, closed with the last."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from harness.config.schema.run import Config
from harness.core.hashing import digest
from harness.data.images.image_corpus import ImageCorpus
from harness.data.images.pca_features import Gallery
from harness.data.open_data import open_data
from harness.data.prefetch import Reader
from harness.data.text.corpus import HeldOut


@dataclass(frozen=True)
class Reading:
    """Batches by step, each gathered once for all runs that ask for it; what is held out; of images, the
    real ones that samples are measured by."""

    reader: Reader
    heldout: Mapping[str, HeldOut]
    gallery: Gallery | None


@dataclass
class _Shelf:
    opening: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0
    reading: Reading | None = None


class Library:
    """For any number of threads. So many readers are open as runs at work read different things."""

    def __init__(self) -> None:
        self._shelves: dict[str, _Shelf] = {}
        self._lock = threading.Lock()

    @contextmanager
    def open(self, config: Config, mine_B: np.ndarray | None = None) -> Iterator[Reading]:
        """What this config reads, of each batch the rows `mine_B` alone (None: all). Whoever comes while
        another opens the same waits for it alone."""
        key = _key(config)
        with self._lock:
            shelf = self._shelves.setdefault(key, _Shelf())
            shelf.users += 1
        try:
            with shelf.opening:
                shelf.reading = shelf.reading or _opened(config, mine_B)
            yield shelf.reading
        finally:
            self._leave(key, shelf)

    def _leave(self, key: str, shelf: _Shelf) -> None:
        with self._lock:
            shelf.users -= 1
            if shelf.users:
                return
            del self._shelves[key]
        if shelf.reading is not None:
            shelf.reading.reader.close()


def _key(config: Config) -> str:
    """Runs with this in common consume the same batches, and are evaluated on the same tokens."""
    return digest([config.data, config.data_seed, config.scale.batch, config.evaluation.tokens])


def _opened(config: Config, mine_B: np.ndarray | None) -> Reading:
    corpus = open_data(config.data)
    heldout = corpus.heldout(config.evaluation.tokens)
    gallery = corpus.gallery(config.evaluation.tokens) if isinstance(corpus, ImageCorpus) else None
    return Reading(Reader(corpus.sampler(config.scale.batch, config.data_seed, mine_B)), heldout, gallery)
