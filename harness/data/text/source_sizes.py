"""Sizes and content hash of a source, and the split into training and held-out text. Files are read once per
version."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.atomic_files import file_sha256
from harness.core.cache.cache_entries import CacheEntry
from harness.core.hashing import hash_json
from harness.core.progress.report import report
from harness.data.text.documents import suffix_of
from harness.data.text.sources import Source
from harness.data.text.split import Split, divide

FORMAT = 1
"""Version of the cache. Raise it when the same files come to mean other documents or tokens."""


@dataclass(frozen=True)
class SplitSize:
    """Number of documents and UTF-8 bytes of one split."""

    documents: int
    bytes: int


@dataclass(frozen=True)
class SourceSizes:
    """Sizes of a source's training and held-out text."""

    train: SplitSize
    heldout: SplitSize
    split: Split = Split.documents

    @property
    def documents(self) -> int:
        """Number of documents; a tail belongs to the document from which it was cut."""
        held_out = self.heldout.documents if self.split is Split.documents else 0
        return self.train.documents + held_out

    @property
    def heldout_share(self) -> float:
        """Share of the bytes that is held out."""
        return self.heldout.bytes / max(1, self.train.bytes + self.heldout.bytes)


def content_hash(source: Source) -> str:
    """Return a hash that changes with the documents of a source or their order."""
    return hash_json([FORMAT, source.column, [[suffix_of(file), file_hash(file)] for file in source.files]])


def measure_source(source: Source, holdout: float, trained: bool) -> SourceSizes:
    """Return the split and the sizes of a source; the first call reads it. Raises UserError for a bad
    document. `trained`: the source is not only evaluated, so it needs training text too."""
    sizes = _measure(source, holdout, Split.documents)
    lacks_heldout = not sizes.heldout.documents
    lacks_train = trained and not sizes.train.documents
    if (lacks_heldout or lacks_train) and sizes.documents and holdout < 1:
        return _measure(source, holdout, Split.tails)
    return sizes


def _measure(source: Source, holdout: float, split: Split) -> SourceSizes:
    key = [content_hash(source), holdout, *([split.value] if split is not Split.documents else [])]
    sizes = cached("survey", key, lambda: _count(source, holdout, split))
    return SourceSizes(SplitSize(**sizes["train"]), SplitSize(**sizes["heldout"]), split)


def _count(source: Source, holdout: float, split: Split) -> dict[str, dict[str, int]]:
    counts = {True: [0, 0], False: [0, 0]}
    for document in source.documents():
        report(f"reading {source.name}")
        for held_out, text in divide(document, holdout, split):
            counts[held_out][0] += 1
            counts[held_out][1] += len(text.encode())
    sides = {"train": SplitSize(*counts[False]), "heldout": SplitSize(*counts[True])}
    return {name: dataclasses.asdict(size) for name, size in sides.items()}


def file_hash(file: Path) -> str:
    """Return the sha256 of a file, which is read once per version."""
    path, state = file.resolve(), file.stat()
    version = [FORMAT, str(path), state.st_size, state.st_mtime_ns]
    return cached("file", version, lambda: file_sha256(path))


def cached(name: str, inputs: list[Any], compute: Callable[[], Any]) -> Any:
    """Return what `compute` returned for these inputs before, otherwise what it returns now. `name` says what
    it is; it is never None."""
    entry = CacheEntry("surveys", name, inputs)
    content = entry.read_json()
    if content is None:
        content = compute()
        entry.write_json(content)
    return content
