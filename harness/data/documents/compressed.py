"""Text and JSON lines in compressed files: the expanded bytes, in segments of whole documents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO

from harness.core.files.expansion import open_expanded
from harness.data.documents.split_text import SEPARATOR, split_text

COMPRESSIONS = {".zst": "zstd", ".gz": "gzip", ".bz2": "bz2"}
BETWEEN = b"\n" + SEPARATOR + b"\n"


def open_text(file: Path, where: str) -> IO[bytes]:
    """Open the content of a file, expanded if its name says that it is compressed. Reading raises UserError,
    which begins with `where`, past the limit of expansion, and OSError for a damaged file."""
    compression = COMPRESSIONS.get(file.suffix)
    return open_expanded(file, compression, where) if compression else file.open("rb")


def cut_segments(stream: IO[bytes], is_lines: bool, size: int) -> Iterator[bytes]:
    """Yield the content of a stream in segments of whole documents, each `size` bytes and up to a document
    more. Segments hold what `segment_documents` reads; `is_lines`: of JSON lines, not of a text."""
    return _line_segments(stream, size) if is_lines else _text_segments(stream, size)


def split_segment(content: bytes) -> Iterator[bytes]:
    """Yield the documents of a segment of a text. None is cut: they were when the segment was."""
    yield from content.removesuffix(b"\n").split(BETWEEN)


def _line_segments(stream: IO[bytes], size: int) -> Iterator[bytes]:
    while content := stream.read(size):
        yield content + stream.readline()


def _text_segments(stream: IO[bytes], size: int) -> Iterator[bytes]:
    segment: list[bytes] = []
    num_bytes = 0
    for document in split_text(stream):
        segment.append(document)
        num_bytes += len(document) + len(BETWEEN)
        if num_bytes >= size:
            yield BETWEEN.join(segment) + b"\n"
            segment, num_bytes = [], 0
    if segment:
        yield BETWEEN.join(segment) + b"\n"
