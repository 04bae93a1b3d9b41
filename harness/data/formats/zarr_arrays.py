"""Arrays of zarr, and the caches of Levanter, read through tensorstore.

A cache of Levanter holds a folder for each field, such as `input_ids`, with two arrays: `data`, the tokens of
all documents one after another, and `offsets`, where the first number is that of the documents and number d
is the end of document d - 1. Both are longer than what is written in them.
"""

from __future__ import annotations

import functools
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Int64

from harness.config.schema.data import SourceConfig
from harness.data.formats.token_format import (
    FileTokens,
    TokenFileError,
    TokenReader,
    check_integer,
    register_token_format,
)

DRIVERS = {"zarr.json": "zarr3", ".zarray": "zarr"}
"""Drivers of tensorstore by the file that describes an array."""
DEFAULT_FIELD = "input_ids"
OPEN_ARRAYS = 64


@register_token_format("zarr")
class ZarrArrays(TokenReader):
    """Arrays [N] or [R, T] of zarr 2 and 3, and caches of Levanter."""

    @classmethod
    def files_of(cls, path: Path) -> list[Path]:
        """Return the folder of an array or of a cache; of a cache in several parts, those of its parts."""
        if _driver(path) or _fields(path):
            return [path]
        if not (path / "shard_ledger.json").is_file():
            return []
        return [folder for folder in sorted(path.iterdir()) if folder.is_dir() and _fields(folder)]

    def open(self, file: Path, column: str) -> FileTokens:
        """Return the tokens of an array, or of a field of a cache."""
        if _driver(file):
            array = _open(file, _state(file))
            check_integer(array.dtype.numpy_dtype)
            if array.ndim > 2:
                raise TokenFileError(f"holds an array of shape {[*array.shape]}: write tokens [N] or [R, T].")
            return FileTokens((_ZarrTokens(file, int(np.prod(array.shape))),))
        folder = _field(file, column)
        offsets = _open(folder / "offsets", _state(folder / "offsets"))
        count = int(offsets[0].read().result())
        size = int(offsets[count].read().result()) if count else 0
        return FileTokens((_ZarrTokens(folder / "data", size),), lambda: _document_starts(folder, count))

    def version(self, file: Path) -> list[int]:
        """Return a number that changes with the sizes and times of the files of an array."""
        states = [
            [str(path.relative_to(file)), state.st_size, state.st_mtime_ns, state.st_ino]
            for path in sorted(file.rglob("*"))
            if path.is_file() and (state := path.stat())
        ]
        return [int.from_bytes(hashlib.sha256(repr(states).encode()).digest()[:8], "big")]


@dataclass(frozen=True)
class _ZarrTokens:
    """Tokens of an array; it is opened when it is read."""

    folder: Path
    count: int

    def __len__(self) -> int:
        return self.count

    def read(self, start: int, count: int) -> Int[np.ndarray, " count"]:
        array = _open(self.folder, self._state)
        if array.ndim == 1:
            return np.asarray(array[start : start + count].read().result())
        width = array.shape[1]
        first, last = start // width, -(-(start + count) // width)
        rows = np.asarray(array[first:last].read().result()).reshape(-1)
        return rows[start - first * width :][:count]

    def advise(self, start: int, count: int) -> None:
        """Do nothing: tensorstore reads."""

    @functools.cached_property
    def _state(self) -> int:
        return _state(self.folder)


def _driver(folder: Path) -> str | None:
    """Return the driver of an array; None for a folder that is none, such as a group."""
    for name, driver in DRIVERS.items():
        file = folder / name
        if file.is_file() and (driver == "zarr" or b'"array"' in file.read_bytes()):
            return driver
    return None


def _fields(folder: Path) -> list[str]:
    """Return the fields of a cache of Levanter."""
    if not folder.is_dir():
        return []
    names = [entry.name for entry in os.scandir(folder) if entry.is_dir()]
    return [name for name in names if all(_driver(folder / name / part) for part in ("offsets", "data"))]


def _field(folder: Path, column: str) -> Path:
    names = (column, *((DEFAULT_FIELD,) if column == SourceConfig.column else ()))
    fields = _fields(folder)
    if not (present := [name for name in names if name in fields]):
        raise TokenFileError(
            f"has no field {names[-1]} (it has {', '.join(fields) or 'none'}): name that of the tokens with"
            " data.sources.NAME.column=..."
        )
    return folder / present[0]


def _document_starts(folder: Path, count: int) -> Int64[np.ndarray, " D"]:
    end_D = np.asarray(_open(folder / "offsets", _state(folder / "offsets"))[1 : count + 1].read().result())
    return np.append(np.int64(0), end_D[:-1].astype(np.int64))[:count]


def _state(folder: Path) -> int:
    """Return the time of the description of an array."""
    return max((folder / name).stat().st_mtime_ns for name in DRIVERS if (folder / name).is_file())


@functools.lru_cache(maxsize=OPEN_ARRAYS)
def _open(folder: Path, _state: int) -> Any:
    import tensorstore

    spec = {"driver": _driver(folder), "kvstore": {"driver": "file", "path": f"{folder}/"}}
    try:
        return tensorstore.open(spec, open=True, read=True).result()
    except ValueError:
        raise TokenFileError("is no array of zarr that tensorstore reads. Write it again.") from None
