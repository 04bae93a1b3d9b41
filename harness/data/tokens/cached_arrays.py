"""Arrays in the cache folder: written once, mapped by every later reader, which waits for nobody.

Arrays lie in a folder beside a sealed entry, which holds their sizes, times and inodes, and facts about them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from harness.core.cache.cache_dir import cache_error, cache_root
from harness.core.cache.cache_entries import DAMAGED, CacheEntry, print_note
from harness.core.progress.waiting import hold_lock

KIND = "token_index"
"""Kind of content of the cache."""
VERSION = 1
"""Version of the arrays. Raise it when the same files come to mean other documents or tokens."""
WAY_OUT = "choose another cache with AB_HARNESS_CACHE=FOLDER"


class ArrayWriter:
    """Writer of arrays, each in pieces, into a folder."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.dtypes: dict[str, str] = {}
        self._folder, self._stack = folder, stack
        self._files: dict[str, BinaryIO] = {}

    def append(self, name: str, values: np.ndarray) -> None:
        """Append values to the array of this name, which are of its dtype."""
        if name not in self._files:
            self._files[name] = self._stack.enter_context((self._folder / name).open("wb"))
            self.dtypes[name] = values.dtype.str
        self._files[name].write(np.ascontiguousarray(values, self.dtypes[name]).data)


def file_version(file: Path) -> list[int]:
    """Return size, time of the last change, and inode of a file."""
    state = file.stat()
    return [state.st_size, state.st_mtime_ns, state.st_ino]


@dataclass(frozen=True)
class StoredArrays:
    """Arrays that are open, memory-mapped, with facts about them."""

    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]


def stored_arrays(inputs: Any) -> StoredArrays | None:
    """Return the arrays of these inputs; None if they are not there, or have been changed."""
    entry = _entry(inputs)
    stored, folder = entry.read_json(), _folder(entry)
    if stored is None:
        return None
    try:
        os.utime(folder)  # the age of an entry counts from its last use
        if any(file_version(folder / name) != version for name, version in stored["files"].items()):
            print_note(f"{folder} {DAMAGED}, or was changed; it is made again.")
            return None
        arrays = {name: _map(folder / name, np.dtype(dtype)) for name, dtype in stored["dtypes"].items()}
    except FileNotFoundError:
        return None
    except OSError as error:
        raise cache_error(cache_root(), error) from error
    return StoredArrays(arrays, stored["facts"])


def build_arrays(inputs: Any, purpose: str, write: Callable[[ArrayWriter], dict[str, Any]]) -> StoredArrays:
    """Return the arrays of these inputs. If they are not there, `write` appends them and returns the facts;
    one process does so. `purpose` is what the others wait for. Raises UserError for a full disk."""
    entry = _entry(inputs)
    folder = _folder(entry)
    with hold_lock(folder.with_suffix(".lock"), purpose, WAY_OUT):
        if (stored := stored_arrays(inputs)) is not None:
            return stored
        try:
            _write(folder, entry, write)
        except OSError as error:
            raise cache_error(cache_root(), error) from error
    stored = stored_arrays(inputs)
    assert stored is not None
    return stored


def cached_arrays(inputs: Any, compute: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return what `compute` returned for these inputs before, otherwise what it returns now."""

    def write(writer: ArrayWriter) -> dict[str, Any]:
        for name, values in compute().items():
            writer.append(name, values)
        return {}

    stored = stored_arrays(inputs) or build_arrays(inputs, "measures a file", write)
    return stored.arrays


def _write(folder: Path, entry: CacheEntry, write: Callable[[ArrayWriter], dict[str, Any]]) -> None:
    """Write arrays and their entry. The lock is held, so an existing draft belongs to a dead builder."""
    draft = folder.with_suffix(".building")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        with ExitStack() as stack:
            writer = ArrayWriter(draft, stack)
            facts = write(writer)
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    files = {name: file_version(folder / name) for name in writer.dtypes}
    entry.write_json({"files": files, "dtypes": writer.dtypes, "facts": facts})


def _entry(inputs: Any) -> CacheEntry:
    return CacheEntry(KIND, "", [VERSION, inputs])


def _folder(entry: CacheEntry) -> Path:
    return entry.path.with_suffix(".arrays")


def _map(file: Path, dtype: np.dtype) -> np.ndarray:
    """Map a file as an array; an empty file cannot be mapped."""
    return np.memmap(file, dtype, mode="r") if file.stat().st_size else np.empty(0, dtype)
