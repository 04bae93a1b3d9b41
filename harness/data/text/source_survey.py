"""Content and sizes of a source, computed once per file version and cached."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.atomic_files import file_sha256, read_json, write_json
from harness.core.cache_dir import cache_dir
from harness.core.hashing import hash_json
from harness.data.text.sources import Source, is_heldout, suffix_of

FORMAT = 1
"""Version of the cache. Raise it when the same files come to mean other documents or tokens."""


@dataclass(frozen=True)
class SplitSize:
    """Number of documents and UTF-8 bytes of one split."""

    documents: int
    bytes: int


@dataclass(frozen=True)
class SourceSizes:
    """Sizes of a source's training and held-out splits."""

    train: SplitSize
    heldout: SplitSize


def content_hash(source: Source) -> str:
    """Return a hash that changes with the documents of a source or their order."""
    return hash_json([FORMAT, source.column, [[suffix_of(file), _file_hash(file)] for file in source.files]])


def measure_source(source: Source, holdout: float) -> SourceSizes:
    """Return the sizes of a source; the first call reads it. Raises UserError for a bad document."""
    key = [content_hash(source), holdout]
    sizes = _cached("survey", hash_json(key), key, lambda: dataclasses.asdict(_count(source, holdout)))
    return SourceSizes(SplitSize(**sizes["train"]), SplitSize(**sizes["heldout"]))


def _count(source: Source, holdout: float) -> SourceSizes:
    counts = {True: [0, 0], False: [0, 0]}
    for text in source.documents():
        count = counts[is_heldout(text, holdout)]
        count[0] += 1
        count[1] += len(text.encode())
    return SourceSizes(train=SplitSize(*counts[False]), heldout=SplitSize(*counts[True]))


def _file_hash(file: Path) -> str:
    path, state = file.resolve(), file.stat()
    name = hashlib.sha256(str(path).encode()).hexdigest()
    version = [FORMAT, str(path), state.st_size, state.st_mtime_ns]
    return _cached("files", name, version, lambda: file_sha256(path))


def _cached(kind: str, name: str, version: list[Any], compute: Callable[[], Any]) -> Any:
    """Return the cached value of a name; compute it again for another version."""
    file = cache_dir("tokens") / kind / f"{name}.json"
    record = read_json(file)
    if not isinstance(record, dict) or record.get("version") != version:
        record = {"version": version, "value": compute()}
        write_json(file, record)
    return record["value"]
