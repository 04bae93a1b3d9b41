"""Pieces of a source: what is tokenised as one shard. They follow from the files' sizes alone.

Small files are taken together, large ones are divided at leaves. A large compressed file is a stream: its
pieces are cut while it is expanded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.data.documents.read_documents import is_compressed, row_group_sizes, suffix_of
from harness.data.text_sources.leaf_hash import LEAF_BYTES, num_leaves
from harness.data.text_sources.source import Source

MAX_PIECES = 1024
"""Pieces into which a large source is divided; each is at least a leaf."""
STREAM_BYTES = 2**23
"""Bytes of a compressed file from which on it is a stream."""


@dataclass(frozen=True)
class FileRange:
    """Part of a file: bytes of a text, row groups of a Parquet file."""

    file: int
    """Number of the file in the source."""
    start: int = 0
    stop: int | None = None
    """None: up to the end."""


@dataclass(frozen=True)
class Leaves:
    """Leaves of a file that are hashed with a piece."""

    file: int
    first: int
    last: int
    """Number of the leaf after the last one."""


@dataclass(frozen=True)
class Piece:
    """Documents that are tokenised as one shard."""

    name: str
    """Name of its files; names sort in the order of the documents."""
    ranges: tuple[FileRange, ...]
    leaves: tuple[Leaves, ...]


@dataclass(frozen=True)
class PiecePlan:
    """Pieces of a source, and the files that are streams."""

    pieces: tuple[Piece, ...]
    streams: tuple[int, ...]


def piece_name(file: int, number: int) -> str:
    """Return the name of a piece by its first file and its number in that file."""
    return f"{file:07}-{number:06}"


def plan_pieces(source: Source) -> PiecePlan:
    """Divide a source into pieces. Reads the end of each large Parquet file, and nothing of others."""
    sizes = [file.stat().st_size for file in source.files]
    span = LEAF_BYTES * -(-sum(sizes) // (LEAF_BYTES * MAX_PIECES))
    pieces, streams, group = list[Piece](), list[int](), list[int]()

    def close_group() -> None:
        if group:
            whole = tuple(FileRange(file) for file in group)
            leaves = tuple(Leaves(file, 0, num_leaves(sizes[file])) for file in group)
            pieces.append(Piece(piece_name(group[0], 0), whole, leaves))
            group.clear()

    for file, (path, size) in enumerate(zip(source.files, sizes, strict=True)):
        is_stream = is_compressed(path) and size > STREAM_BYTES
        is_large = is_stream or size > LEAF_BYTES
        if is_large or sum(sizes[member] for member in group) + size > span:
            close_group()
        if is_stream:
            streams.append(file)
        elif is_large:
            pieces += _pieces_of_file(file, path, size, span)
        else:
            group.append(file)
    close_group()
    return PiecePlan(tuple(pieces), tuple(streams))


def _pieces_of_file(file: int, path: Path, size: int, span: int) -> Iterator[Piece]:
    if suffix_of(path) == ".parquet":
        yield from _pieces_of_table(file, path, size, span)
        return
    for number, start in enumerate(range(0, size, span)):
        stop = min(start + span, size)
        leaves = Leaves(file, start // LEAF_BYTES, num_leaves(stop))
        yield Piece(piece_name(file, number), (FileRange(file, start, stop),), (leaves,))


def _pieces_of_table(file: int, path: Path, size: int, span: int) -> Iterator[Piece]:
    """Yield pieces of whole row groups, each with its share of the file's leaves."""
    ends, filled = list[int](), 0
    groups = row_group_sizes(path)
    for number, num_bytes in enumerate(groups):
        filled += num_bytes
        if filled >= span or number + 1 == len(groups):
            ends.append(number + 1)
            filled = 0
    ends = ends or [0]  # a table without rows
    leaves, start = num_leaves(size), 0
    for number, end in enumerate(ends):
        first, last = (leaves * i // len(ends) for i in (number, number + 1))
        yield Piece(piece_name(file, number), (FileRange(file, start, end),), (Leaves(file, first, last),))
        start = end
