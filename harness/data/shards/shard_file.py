"""Files of a shard: the tokens of both splits in the format of llm.c, the lengths of the documents, a record.

The record is written last, so a shard without one is not there.
"""

from __future__ import annotations

import dataclasses
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from harness.core import atomic_files
from harness.data.tokens.token_sequence import TokenFile

SPLITS = ("train", "heldout")
HEADER_BYTES = 1024
"""Bytes of the header of llm.c: 256 words of 32 bits, of which the first three are used."""
MAGIC = {2: (20240520, 1), 4: (20240801, 7)}
"""Magic number and version of llm.c by the bytes of a token (uint16, uint32)."""
_CHECK_BYTES = 2**24
_BUFFER_BYTES = 2**20


@dataclass(frozen=True)
class SplitRecord:
    """Counts and checksum of a split of a shard."""

    documents: int = 0
    bytes: int = 0
    """UTF-8 bytes of the text."""
    tokens: int = 0
    crc32: int = 0
    """Checksum of the tokens."""


@dataclass(frozen=True)
class ShardRecord:
    """A shard that is complete."""

    train: SplitRecord
    heldout: SplitRecord
    leaves: list[tuple[int, int, str]] = field(default_factory=list)
    """File, number and hash of each leaf that was hashed with it."""

    def split(self, is_heldout: bool) -> SplitRecord:
        """Return one split."""
        return self.heldout if is_heldout else self.train

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ShardRecord:
        """Return the record of plain data."""
        train, heldout = (SplitRecord(**content[name]) for name in SPLITS)
        return cls(train, heldout, [(file, leaf, digest) for file, leaf, digest in content["leaves"]])


def tokens_path(folder: Path, name: str, split: str) -> Path:
    """Return the file of a shard's tokens."""
    return folder / f"{name}.{split}.bin"


def lengths_path(folder: Path, name: str) -> Path:
    """Return the file of the lengths of a shard's training documents, uint32, end tokens included."""
    return folder / f"{name}.lengths"


def record_path(folder: Path, name: str) -> Path:
    """Return the file of a shard's record."""
    return folder / f"{name}.json"


def read_shard_record(folder: Path, name: str) -> ShardRecord | None:
    """Return the record of a shard; None if it is not complete."""
    content = atomic_files.read_checksummed_json(record_path(folder, name))
    return None if content is None else ShardRecord.from_json(content)


def shard_tokens(folder: Path, name: str, split: str, dtype: np.dtype, tokens: int) -> TokenFile:
    """Return the tokens of one split of a shard."""
    return TokenFile(tokens_path(folder, name, split), HEADER_BYTES, dtype, tokens)


class ShardWriter:
    """Writer of a shard. Call `add` for each text in order, then `finish`."""

    def __init__(self, folder: Path, name: str, dtype: np.dtype, end_token: int) -> None:
        self._folder, self._name, self._dtype = folder, name, dtype
        self._end = np.array([end_token], dtype).tobytes()
        self._files = [tokens_path(folder, name, split).open("wb", _BUFFER_BYTES) for split in SPLITS]
        self._lengths = lengths_path(folder, name).open("wb")
        self._splits = [SplitRecord(), SplitRecord()]
        for file in self._files:
            file.write(bytes(HEADER_BYTES))

    def add(self, is_heldout: bool, tokens: np.ndarray, num_bytes: int) -> None:
        """Add the tokens of a text of `num_bytes` UTF-8 bytes, and the token that ends it."""
        content = tokens.astype(self._dtype, copy=False).tobytes() + self._end
        split = self._splits[is_heldout]
        self._files[is_heldout].write(content)
        if not is_heldout:
            self._lengths.write(np.uint32(len(tokens) + 1).tobytes())
        self._splits[is_heldout] = SplitRecord(
            split.documents + 1,
            split.bytes + num_bytes,
            split.tokens + len(tokens) + 1,
            zlib.crc32(content, split.crc32),
        )

    def finish(self, leaves: list[tuple[int, int, str]]) -> ShardRecord:
        """Write headers and the record."""
        for file, split in zip(self._files, self._splits, strict=True):
            file.seek(0)
            file.write(_header(self._dtype, split.tokens))
        self.close(sync=True)
        train, heldout = self._splits
        record = ShardRecord(train, heldout, leaves)
        atomic_files.write_checksummed_json(record_path(self._folder, self._name), dataclasses.asdict(record))
        return record

    def close(self, *, sync: bool = False) -> None:
        """Close the files."""
        for file in (*self._files, self._lengths):
            _close(file, sync)


def _close(file: IO[bytes], sync: bool) -> None:
    if sync and not file.closed:
        file.flush()
        os.fsync(file.fileno())
    file.close()


def _header(dtype: np.dtype, tokens: int) -> bytes:
    words = np.zeros(HEADER_BYTES // 4, "<i4")
    words[:2], words[2] = MAGIC[dtype.itemsize], tokens
    return words.tobytes()


def is_intact(file: TokenFile, split: SplitRecord) -> bool:
    """Return whether every byte of a shard's file is what its builder wrote."""
    try:
        with file.path.open("rb", buffering=0) as stream:
            crc, header = 0, stream.read(HEADER_BYTES)
            while part := stream.read(_CHECK_BYTES):
                crc = zlib.crc32(part, crc)
    except FileNotFoundError:
        return False
    return (header, crc) == (_header(file.dtype, split.tokens), split.crc32)
