"""Documents of one file, of any supported format, whole or in parts that can be read apart.

Text files separate documents by a line `<|endoftext|>`. A line of JSON and a row of Parquet are a document
each. Compressed files expand up to a limit (core.files.expansion).
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path

from harness.data.documents.compressed import COMPRESSIONS, cut_segments, open_text, split_segment
from harness.data.documents.json_lines import count_lines_before, json_texts, read_lines
from harness.data.documents.split_text import SEPARATOR, split_text
from harness.data.documents.text_column import TextColumn

__all__ = [
    "END_OF_TEXT",
    "TEXT_SUFFIXES",
    "cut_segments",
    "damage_errors",
    "documents_between",
    "is_compressed",
    "is_line_format",
    "open_text",
    "read_documents",
    "row_group_documents",
    "row_group_sizes",
    "segment_documents",
    "suffix_of",
]

END_OF_TEXT = SEPARATOR.decode()
LINE_SUFFIXES = (".jsonl", ".json")
TEXT_SUFFIXES = (
    *(plain + compression for plain in (".txt", *LINE_SUFFIXES) for compression in ("", *COMPRESSIONS)),
    ".parquet",
)
SEGMENT_BYTES = 2**18
"""Expanded bytes that are read at a time; of a stand-in for a remote file, only the begin is there."""


def suffix_of(file: Path, suffixes: tuple[str, ...] = TEXT_SUFFIXES) -> str | None:
    """Return the suffix that decides how a file is read; None for a file that is not read."""
    return next((suffix for suffix in suffixes if file.name.endswith(suffix)), None)


def is_compressed(file: Path) -> bool:
    """Return whether a file is read expanded, from its begin on."""
    return file.suffix in COMPRESSIONS


def is_line_format(file: Path) -> bool:
    """Return whether the lines of a file are its documents, as JSON."""
    return (suffix_of(file) or "").startswith(LINE_SUFFIXES)


def read_documents(file: Path, column: str, key: str, path: str) -> Iterator[str]:
    """Yield the documents of a file; a missing value is an empty document.

    `key` is the config key of the source, and `path` its value, for messages. Raises UserError for content
    that is not text, UnicodeError for a file that is not UTF-8, OSError or ArrowException for a damaged one.
    """
    if suffix_of(file) == ".parquet":
        yield from row_group_documents(file, column, key, path)
    elif is_compressed(file):
        yield from _expanded_documents(file, column, key, path)
    else:
        yield from documents_between(file, column, key, path, 0, file.stat().st_size)


def documents_between(file: Path, column: str, key: str, path: str, start: int, stop: int) -> Iterator[str]:
    """Yield the documents of a plain file that begin in bytes [start, stop). Of a text, both are multiples of
    `split_text.LEAF` or the end of the file."""
    with file.open("rb") as stream:
        end = math.inf if stop >= file.stat().st_size else stop
        if is_line_format(file):
            yield from json_texts(
                read_lines(stream, start, end),
                TextColumn(file, column, key, path),
                lambda: _lines_before(file, start),
            )
        else:
            yield from (document.decode() for document in split_text(stream, start, end))


def segment_documents(
    file: Path, column: str, key: str, path: str, content: bytes, lines_before: int
) -> Iterator[str]:
    """Yield the documents of a segment (`cut_segments`) of a compressed file. `lines_before`: the number of
    line ends in the segments before it, for messages."""
    if is_line_format(file):
        table = TextColumn(file, column, key, path)
        yield from json_texts(read_lines(io.BytesIO(content)), table, lambda: lines_before)
    else:
        yield from (document.decode() for document in split_segment(content))


def row_group_documents(
    file: Path, column: str, key: str, path: str, groups: range | None = None
) -> Iterator[str]:
    """Yield the documents of some row groups of a Parquet file; None: of all."""
    from harness.data.documents.parquet_rows import parquet_texts  # tokens in the cache need no PyArrow

    return parquet_texts(TextColumn(file, column, key, path), groups)


def row_group_sizes(file: Path, column: str = "") -> list[int]:
    """Return the bytes of each row group of a Parquet file, as `parquet_rows.row_group_sizes`."""
    from harness.data.documents import parquet_rows

    return parquet_rows.row_group_sizes(file, column)


def damage_errors() -> tuple[type[Exception], ...]:
    """Return the errors of reading a damaged file."""
    from pyarrow import ArrowException

    return OSError, ArrowException


def _expanded_documents(file: Path, column: str, key: str, path: str) -> Iterator[str]:
    lines_before = 0
    with open_text(file, f"{key}.path={path}: {file.name}") as stream:
        for content in cut_segments(stream, is_line_format(file), SEGMENT_BYTES):
            yield from segment_documents(file, column, key, path, content, lines_before)
            lines_before += content.count(b"\n")


def _lines_before(file: Path, start: int) -> int:
    with file.open("rb") as stream:
        return count_lines_before(stream, start)
