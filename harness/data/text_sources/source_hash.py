"""Hashes of files and sources. A file is read once per version; a large one not before its text is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.core.cache.cache_entries import CacheEntry
from harness.core.hashing import hash_json
from harness.data.documents.read_documents import suffix_of
from harness.data.text_sources.leaf_hash import LEAF_BYTES, file_tree_hash
from harness.data.text_sources.source import Source

FORMAT = 1
"""Version of the cache. Raise it when the same files come to mean other documents or tokens."""
SMALL_BYTES = LEAF_BYTES
"""Bytes of a source up to which its text is read at once to count and to hash it."""


def content_hash(source: Source) -> str:
    """Return a hash that changes with the documents of a source or their order."""
    return hash_json([FORMAT, source.column, [[suffix_of(file), file_hash(file)] for file in source.files]])


def state_hash(source: Source) -> str:
    """Return a hash of the files' sizes and times: `content_hash` of a source that is not read yet."""
    states = [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in source.files]
    return hash_json(["state", FORMAT, source.column, states])


def source_bytes(source: Source) -> int:
    """Return the bytes of the files of a source."""
    return sum(file.stat().st_size for file in source.files)


def is_hashed(source: Source) -> bool:
    """Return whether the content of a source is known, or read at once."""
    return source_bytes(source) <= SMALL_BYTES or all(
        _file_entry(file).read_json() is not None for file in source.files
    )


def file_hash(file: Path) -> str:
    """Return the hash of a file (`content_hash.join_leaves`), which is read once per version."""
    entry = _file_entry(file)
    digest = entry.read_json()
    if digest is None:
        digest = file_tree_hash(file)
        entry.write_json(digest)
    return digest


def remember_file_hash(file: Path, digest: str) -> None:
    """Keep the hash of a file that was read in its present version."""
    _file_entry(file).write_json(digest)


def _file_entry(file: Path) -> CacheEntry:
    path, state = file.resolve(), file.stat()
    name = "file" if state.st_size <= LEAF_BYTES else "leaves"
    return CacheEntry("surveys", name, [FORMAT, str(path), state.st_size, state.st_mtime_ns])


def cached(name: str, inputs: list[Any], compute: Callable[[], Any]) -> Any:
    """Return what `compute` returned for these inputs before, otherwise what it returns now. `name` says what
    it is; it is never None."""
    entry = CacheEntry("surveys", name, inputs)
    content = entry.read_json()
    if content is None:
        content = compute()
        entry.write_json(content)
    return content
