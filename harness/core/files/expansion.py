"""Limit on the expansion of compressed files: a few kilobytes can stand for terabytes."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import IO, Any

from harness.core.errors import UserError
from harness.core.number_format import format_bytes

VARIABLE = "AB_HARNESS_MAX_EXPANSION"
"""Environment variable with another factor; `inf` lifts the limit."""
MAX_FACTOR = 200.0
"""Expanded bytes for each compressed one. Text expands 3 to 10 times, logs and tables up to 50 times."""
FREE_BYTES = 2**28
"""Bytes to which any file may expand, however small it is."""


def expansion_limit(compressed_bytes: float) -> float:
    """Return the bytes, a finite number, to which a file of this size may expand. Raises UserError for a bad
    factor."""
    text = os.environ.get(VARIABLE) or str(MAX_FACTOR)
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not factor >= 1:
        raise UserError(f"{VARIABLE}={text}: out of range. Give a number of at least 1, or inf for no limit.")
    return min(max(FREE_BYTES, factor * compressed_bytes), 2.0**62)


def check_expansion(where: str, expanded_bytes: float, compressed_bytes: float) -> None:
    """Raise UserError if `where`, a file of `compressed_bytes`, expands to more than the limit."""
    limit = expansion_limit(compressed_bytes)
    if expanded_bytes > limit:
        raise UserError(
            f"{where} has {format_bytes(compressed_bytes)} and expands to more than {format_bytes(limit)}, "
            f"as no honest file does. If you trust it, set {VARIABLE}=inf."
        )


def open_expanded(file: Path, compression: str, where: str) -> IO[bytes]:
    """Open a `gzip` or `zstd` file as a stream of its content. Reading raises UserError, which begins with
    `where`, past the limit, and OSError for a damaged file."""
    return io.BufferedReader(_ExpandedStream(file, compression, where), 2**20)


class _ExpandedStream(io.RawIOBase):
    def __init__(self, file: Path, compression: str, where: str) -> None:
        import pyarrow as pa

        self._stream = pa.CompressedInputStream(pa.OSFile(str(file)), compression)
        self._where, self._compressed_bytes, self._num_read = where, file.stat().st_size, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        chunk = self._stream.read(len(buffer))
        self._num_read += len(chunk)
        check_expansion(self._where, self._num_read, self._compressed_bytes)
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        self._stream.close()
        super().close()
