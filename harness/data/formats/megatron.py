"""Indexed data sets of Megatron-LM: tokens in a `.bin`, sequences and documents in the `.idx` beside it.

The index: `MMIDIDX`, two zero bytes, a version (uint64), a code of the dtype (uint8), the numbers of
sequences and of document indices (uint64 each), then the lengths of the sequences (int32), their first bytes
(int64), and the first sequence of each document with the number of sequences at the end (int64).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from harness.data.formats.token_format import (
    FileTokens,
    TokenFileError,
    TokenReader,
    check_integer,
    file_version,
    register_token_format,
)
from harness.data.tokens.token_sequence import TokenFile

MAGIC = b"MMIDIDX\x00\x00"
HEADER = struct.Struct("<9sQBQQ")
DTYPES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 6: "<f8", 7: "<f4", 8: "<u2"}
"""Dtypes by their codes (megatron/core/datasets/indexed_dataset.py)."""


@register_token_format("megatron", suffixes=(".bin",))
class Megatron(TokenReader):
    """A `.bin` with its `.idx`; a path may also be their common prefix."""

    @classmethod
    def recognises(cls, file: Path, head: bytes) -> bool:
        """Return whether an index lies beside the file."""
        return file.with_suffix(".idx").is_file()

    @classmethod
    def files_of(cls, path: Path) -> list[Path]:
        """Return the `.bin` of a prefix or of an `.idx`."""
        prefix = path.with_suffix("") if path.suffix == ".idx" else path
        file = prefix.with_name(prefix.name + ".bin")
        is_pair = not path.is_dir() and file.is_file() and file.with_suffix(".idx").is_file()
        return [file] if is_pair else []

    def open(self, file: Path, column: str) -> FileTokens:
        """Return the tokens of the `.bin`, which its index has to cover."""
        index = _Index.open(file.with_suffix(".idx"))
        size, expected = file.stat().st_size, index.num_bytes
        if size != expected:
            raise TokenFileError(
                f"has {size} bytes, but {index.file.name} tells {expected}: it is the index of another .bin,"
                " or one of both is cut short. Copy both again."
            )
        part = TokenFile(file, 0, index.dtype, size // index.dtype.itemsize)
        return FileTokens((part,), index.document_starts)

    def version(self, file: Path) -> list[int]:
        """Return numbers that change with either file."""
        return [*file_version(file), *file_version(file.with_suffix(".idx"))]


@dataclass(frozen=True)
class _Index:
    file: Path
    dtype: np.dtype
    num_sequences: int
    num_indices: int

    @classmethod
    def open(cls, file: Path) -> _Index:
        if not file.is_file():
            raise TokenFileError(f"has no {file.name} beside it. Copy both, or name another format.")
        head = _head(file)
        if len(head) < HEADER.size or head[: len(MAGIC)] != MAGIC:
            raise TokenFileError(
                f"lies beside {file.name}, which is no index of Megatron-LM (MMIDIDX). Make it again with"
                " Megatron's preprocess_data.py, or name another format."
            )
        _, version, code, num_sequences, num_indices = HEADER.unpack(head)
        if version != 1 or code not in DTYPES:
            raise TokenFileError(
                f"has an index of version {version} and dtype code {code}; version 1 can be read."
            )
        index = cls(file, check_integer(np.dtype(DTYPES[code])), num_sequences, num_indices)
        expected = HEADER.size + 12 * num_sequences + 8 * num_indices
        if file.stat().st_size < expected:
            raise TokenFileError(
                f"has an index, {file.name}, that is cut short: {file.stat().st_size} bytes of {expected}."
                " Copy it again."
            )
        return index

    @property
    def num_bytes(self) -> int:
        """Bytes of the tokens, by the last sequence."""
        if not self.num_sequences:
            return 0
        return int(self._pointers()[-1]) + int(self._lengths()[-1]) * self.dtype.itemsize

    def document_starts(self) -> Int64[np.ndarray, " D"]:
        """Return the first token of each document."""
        pointers, lengths = self._pointers(), self._lengths()
        if (pointers[1:] - pointers[:-1] != lengths[:-1].astype(np.int64) * self.dtype.itemsize).any():
            raise TokenFileError(
                f"has an index, {self.file.name}, whose sequences do not follow one another."
                " Make it again with Megatron's preprocess_data.py."
            )
        indices = self._map("<i8", HEADER.size + 12 * self.num_sequences, self.num_indices)
        first_D = indices[:-1]
        if len(indices) < 2 or indices[0] or indices[-1] != len(lengths) or (np.diff(indices) < 0).any():
            raise TokenFileError(
                f"has an index, {self.file.name}, whose documents do not cover its sequences. Make it again"
                " with Megatron's preprocess_data.py."
            )
        return pointers[first_D[first_D < len(lengths)]] // self.dtype.itemsize

    def _lengths(self) -> np.ndarray:
        return self._map("<i4", HEADER.size, self.num_sequences)

    def _pointers(self) -> np.ndarray:
        return self._map("<i8", HEADER.size + 4 * self.num_sequences, self.num_sequences)

    def _map(self, dtype: str, offset: int, count: int) -> np.ndarray:
        return np.memmap(self.file, dtype, "r", offset, (count,)) if count else np.empty(0, dtype)


def _head(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(HEADER.size)
