"""Sequence of tokens that lies in many files and is read in place.

A sequence is a list of extents: runs of tokens in a part (`TokenPart`), such as the tokens of a file after
its header. Windows are read with `pread`, after the kernel was told which ranges come: so one thread keeps
many reads of a disk under way, and no page is read that nobody asked for, as page faults of a memory map do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Int, Int32

ADVISED_BYTES = 2**26
"""Bytes of a file from which on the kernel is told which ranges come; smaller ones soon lie in memory."""
OPEN_FILES = 256
"""Files that a process keeps open; a system allows 1,024 or more."""
RUN_TOKENS = 2**20
"""Tokens that `runs` gives at a time."""


class TokenPart(Protocol):
    """Tokens that can be read from any place on."""

    def __len__(self) -> int:
        """Return the number of tokens."""
        ...

    def read(self, start: int, count: int) -> Int[np.ndarray, " count"]:
        """Return `count` tokens from `start` on, of any integer type."""
        ...

    def advise(self, start: int, count: int) -> None:
        """Tell the system that these tokens will be read soon."""
        ...


@dataclass(frozen=True)
class TokenFile:
    """Tokens that lie one after another in a file. It is opened when it is read."""

    path: Path
    offset: int
    """Bytes before the first token."""
    dtype: np.dtype
    """Integer type of a token, with its byte order."""
    count: int
    """Number of tokens."""

    def __len__(self) -> int:
        """Return the number of tokens."""
        return self.count

    def read(self, start: int, count: int) -> Int[np.ndarray, " count"]:
        """Return `count` tokens from `start` on. Raises OSError for a file that has become shorter."""
        size, file = self.dtype.itemsize, self._file  # held: another thread may drop it from the open ones
        content = os.pread(file.descriptor, count * size, self.offset + start * size)
        while len(content) < count * size:  # the kernel gives at most 2 GiB at once
            rest = count * size - len(content)
            more = os.pread(file.descriptor, rest, self.offset + start * size + len(content))
            if not more:
                raise OSError(f"{self.path} ends before token {start + count}: it has become shorter")
            content += more
        return np.frombuffer(content, self.dtype)

    def advise(self, start: int, count: int) -> None:
        """Tell the kernel that these tokens will be read soon."""
        size, file = self.dtype.itemsize, self._file
        if self.count * size >= ADVISED_BYTES:
            place = self.offset + start * size
            os.posix_fadvise(file.descriptor, place, count * size, os.POSIX_FADV_WILLNEED)

    @property
    def _file(self) -> _OpenFile:
        return _open(self.path, self._inode)

    @cached_property
    def _inode(self) -> int:
        return self.path.stat().st_ino


class _OpenFile:
    """A descriptor that is closed with its last user."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_RANDOM)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


@lru_cache(maxsize=OPEN_FILES)
def _open(path: Path, _inode: int) -> _OpenFile:
    return _OpenFile(path)


@dataclass(frozen=True)
class TokenSequence:
    """Tokens of extents, one after another: extent e is the tokens of `parts[part_E[e]]` from `start_E[e]`
    on, up to place `end_E[e]` of the sequence."""

    parts: tuple[TokenPart, ...]
    part_E: Int[np.ndarray, " E"]
    start_E: Int[np.ndarray, " E"]
    end_E: Int[np.ndarray, " E"] = field(repr=False)
    """Number of tokens up to the end of each extent, rising; these arrays may be memory-mapped."""

    @classmethod
    def of_parts(cls, parts: Sequence[TokenPart]) -> TokenSequence:
        """Return all tokens of the parts, in their order."""
        parts = [part for part in parts if len(part)]
        ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
        return cls(tuple(parts), np.arange(len(parts)), np.zeros(len(parts), np.int64), ends)

    def __len__(self) -> int:
        """Return the number of tokens."""
        return int(self.end_E[-1]) if len(self.end_E) else 0

    def windows(self, start_B: Int[np.ndarray, " B"], length: int) -> Int32[np.ndarray, "B length"]:
        """Return `length` tokens from each start on, in any thread."""
        return self.ranges(start_B, np.full(len(start_B), length)).reshape(len(start_B), length)

    def ranges(
        self, start_B: Int[np.ndarray, " B"], count_B: Int[np.ndarray, " B"]
    ) -> Int32[np.ndarray, " N"]:
        """Return `count_B` tokens from each start on, one range after another, in any thread."""
        pieces = [*self._pieces(np.asarray(start_B, np.int64), np.asarray(count_B, np.int64))]
        for part, first, count in pieces:
            part.advise(first, count)
        tokens_N, filled = np.empty(int(np.sum(count_B)), np.int32), 0
        for part, first, count in pieces:
            tokens_N[filled : filled + count] = part.read(first, count)
            filled += count
        return tokens_N

    def read(self, start: int = 0, count: int | None = None) -> Int32[np.ndarray, " count"]:
        """Return `count` tokens from `start` on; None: all that follow."""
        count = len(self) - start if count is None else count
        return self.windows(np.array([start]), count)[0] if count else np.empty(0, np.int32)

    def runs(self) -> Iterator[Int[np.ndarray, " N"]]:
        """Yield all tokens in order, some at a time, of the types in which they lie."""
        before = 0
        for part, start, end in zip(self.part_E, self.start_E, self.end_E, strict=True):
            for first in range(0, int(end) - before, RUN_TOKENS):
                count = min(RUN_TOKENS, int(end) - before - first)
                yield self.parts[part].read(int(start) + first, count)
            before = int(end)

    def _pieces(
        self, start_B: Int[np.ndarray, " B"], count_B: Int[np.ndarray, " B"]
    ) -> Iterator[tuple[TokenPart, int, int]]:
        """Yield (part, first token in it, number) of all that ranges consist of, in their order."""
        extent_B = np.searchsorted(self.end_E, start_B, side="right")
        places = zip(start_B.tolist(), count_B.tolist(), extent_B.tolist(), strict=True)
        for place, left, extent in places:
            while left:
                end = int(self.end_E[extent])
                before = int(self.end_E[extent - 1]) if extent else 0
                count = min(left, end - place)
                first = int(self.start_E[extent]) + place - before
                yield self.parts[self.part_E[extent]], first, count
                left, place, extent = left - count, end, extent + 1
