"""Checksums of a checkpoint's files: computed in threads, and remembered while the files stay as they are.

A checkpoint of 7B parameters has 84 GB. Its files count as verified while each has the size, the times of
modification and of change, and the inode that it had when it was hashed. No program can write to a file and
keep all of these, but a disk that loses bits can. So a checkpoint is hashed again before it is restored, and
memory only answers whether an ended run still has what it had. It lies in the cache, under the user's key.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from harness.core import atomic_files
from harness.core.cache.cache_entries import CacheEntry
from harness.core.errors import UserError
from harness.core.progress.report import report

Files = dict[str, list]
"""Relative path -> [size in bytes, sha256], as in a manifest."""
REMEMBER_BYTES = 2**24
"""Size from which a checkpoint is remembered. Hashing a smaller one takes as long as remembering it."""


def hash_files(folder: Path, names: Iterable[str]) -> Files:
    """Return size and sha256 of files in a folder, read by as many threads as there are cores."""
    return dict(zip(names := [*names], _map(lambda name: _hash(folder / name), names), strict=True))


def _hash(path: Path) -> list[Any]:
    return [path.stat().st_size, atomic_files.file_sha256(path)]


def _map(function: Any, names: Sequence[str]) -> list[Any]:
    """Apply a function to each file. Hashing releases Python's lock, so threads share the work."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        results = []
        for name, result in zip(names, pool.map(function, names), strict=True):
            report(f"reads {name}", len(results), len(names))
            results.append(result)
    return results


def hash_new_files(folder: Path) -> Files:
    """Return size and sha256 of all files that were just written into a folder, and remember them. They are
    first synced to the disk: a crash of the machine must not leave less than what is remembered."""
    names = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]
    entry = None
    if _is_large(folder, names):
        _map(lambda name: _sync(folder / name), names)
        entry = _memory(folder, names)
    files = hash_files(folder, names)
    _remember(entry, files)
    return files


def find_fault(folder: Path, files: Files, trust_memory: bool) -> str | None:
    """Return why files differ from what a manifest says; None if they do not. `trust_memory`: files that were
    verified before and are as they were count as valid; otherwise every byte is read."""
    for name, (size, _) in files.items():
        path = folder / name
        if not path.is_file():
            return f"{path}: the file is missing"
        if path.stat().st_size != size:
            return _mismatch(path)
    entry = _memory(folder, files) if _is_large(folder, files) else None
    if trust_memory and entry and _is_remembered(entry, files):
        return None
    hashes = hash_files(folder, files)
    wrong_files = [name for name in files if hashes[name] != files[name]]
    if wrong_files:
        if entry:
            entry.remove()
        return _mismatch(folder / wrong_files[0])
    _remember(entry, files)
    return None


def _mismatch(path: Path) -> str:
    return f"{path}: the file does not match its checksum in the manifest"


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _is_large(folder: Path, names: Iterable[str]) -> bool:
    return sum((folder / name).stat().st_size for name in names) >= REMEMBER_BYTES


def _memory(folder: Path, names: Iterable[str]) -> CacheEntry:
    """Return the place in the cache for the checksums of files as they are now."""
    states = [[name, *_state(folder / name)] for name in sorted(names)]
    return CacheEntry("verified", "", [str(folder.resolve()), states])


def _state(path: Path) -> list[int]:
    state = path.stat()
    return [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]


def _is_remembered(entry: CacheEntry, files: Files) -> bool:
    with contextlib.suppress(UserError):  # a cache that cannot be used remembers nothing
        return entry.read_json() == files
    return False


def _remember(entry: CacheEntry | None, files: Files) -> None:
    with contextlib.suppress(UserError):
        if entry:
            entry.write_json(files)
