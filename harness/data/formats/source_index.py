"""Index of a source of tokens: its documents on two sides, kept in the cache as memory-mapped extents.

The tokens that are read are the same in every format: each document that is not empty, in order, followed by
the end token if there is one. Where a file lacks it, it is read from a part of its own.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, UInt64

from harness.core.cache.cache_entries import CacheEntry
from harness.core.hashing import hash_json
from harness.core.progress.report import report
from harness.data.formats.file_index import FileIndex, hash_tokens, index_files
from harness.data.formats.token_sources import TokenSource
from harness.data.tokens.cached_arrays import (
    KIND,
    VERSION,
    ArrayWriter,
    StoredArrays,
    build_arrays,
    stored_arrays,
)
from harness.data.tokens.extents import EndTokens, ExtentWriter, FileParts, piece_of
from harness.data.tokens.token_sequence import TokenSequence

CHUNK_PIECES = 2**20
"""Pieces of a file that are divided at a time."""
SIDES = {False: "train", True: "heldout"}


@dataclass(frozen=True)
class SourceContent:
    """Hashes of a source's tokens and documents."""

    content: str
    """Hash of all of them, the same in every format."""
    file_digests: list[str]
    """Hash of each file's."""


@dataclass(frozen=True)
class SourceIndex:
    """A source's documents on two sides."""

    content: str
    """Hash of all tokens and documents, the same in every format."""
    smallest: int
    largest: int
    has_documents: bool
    """False if nothing tells where documents begin; all tokens are then in `train`."""
    num_documents: list[int]
    """Documents of training, and held-out ones."""
    train: TokenSequence
    heldout: TokenSequence
    starts_D: Int64[np.ndarray, " D"]
    """Place in `train` of each document."""


def index_source(source: TokenSource, end_token: int | None, holdout: float) -> SourceIndex:
    """Return the index of a source, of whose documents the share `holdout` is held out by a hash of their
    tokens. The first call reads all tokens. Raises UserError for tokens that are none."""
    inputs = _inputs(source, end_token, holdout)
    stored = stored_arrays(inputs)
    if stored is None:
        indices = index_files(source.name, source.index_tasks(end_token))

        def write(writer: ArrayWriter) -> dict[str, Any]:
            return _write(source, indices, end_token, holdout, writer)

        stored = build_arrays(inputs, f"indexes {source.name}", write)
    return _open(source, stored, end_token)


def source_content(source: TokenSource, end_token: int | None) -> SourceContent:
    """Return the hashes of a source, which do not depend on what is held out."""
    entry = _content_entry(source, end_token)
    stored = entry.read_json()
    if stored is None:
        indices = index_files(source.name, source.index_tasks(end_token))
        return _divide(source, indices, _Division({}, 0.0, end_token is not None), end_token)
    return SourceContent(**stored)


def is_indexed(source: TokenSource, end_token: int | None, holdout: float) -> bool:
    """Return whether the index of a source is in the cache."""
    return stored_arrays(_inputs(source, end_token, holdout)) is not None


def _inputs(source: TokenSource, end_token: int | None, holdout: float) -> list[Any]:
    # A hash, since the inputs of an entry are stored with it, and there may be thousands of files.
    return ["source", hash_json([task.inputs for task in source.index_tasks(end_token)]), holdout]


def _open(source: TokenSource, stored: StoredArrays, end_token: int | None) -> SourceIndex:
    files = source.open()
    parts = [part for tokens in files for part in tokens.parts]
    arrays = stored.arrays
    if not stored.facts["has_documents"]:
        train, heldout = TokenSequence.of_parts(parts), TokenSequence.of_parts(())
    else:
        all_parts = (*parts, *([] if end_token is None else [EndTokens(end_token)]))
        train, heldout = (
            TokenSequence(all_parts, *(arrays[f"{side}_{name}"] for name in ("part", "start", "end")))
            for side in SIDES.values()
        )
    starts_D = arrays.get("train_document", np.empty(0, np.int64))
    return SourceIndex(**stored.facts, train=train, heldout=heldout, starts_D=starts_D)


def _write(
    source: TokenSource,
    indices: Sequence[FileIndex],
    end_token: int | None,
    holdout: float,
    writer: ArrayWriter,
) -> dict[str, Any]:
    """Write the extents of both sides, and return what else there is to know."""
    end_part = sum(len(tokens.parts) for tokens in source.open())
    sides = {held_out: ExtentWriter(writer, side, end_part) for held_out, side in SIDES.items()}
    division = _Division(sides, holdout, end_token is not None)
    hashes = _divide(source, indices, division, end_token)
    return {
        "content": hashes.content,
        "smallest": min((index.smallest for index in indices), default=0),
        "largest": max((index.largest for index in indices), default=0),
        "has_documents": _has_documents(indices, end_token),
        "num_documents": [side.num_documents for side in sides.values()],
    }


def _divide(
    source: TokenSource, indices: Sequence[FileIndex], division: _Division, end_token: int | None
) -> SourceContent:
    """Divide the documents of all files, where there are any, and store the hashes of what was read."""
    digests = [index.digest for index in indices]
    content = hash_json(digests)
    if _has_documents(indices, end_token):
        first_part = 0
        for number, (tokens, index) in enumerate(zip(source.open(), indices, strict=True)):
            report(f"dividing {source.name}", number, len(digests))
            division.add_file(FileParts.of(tokens.parts, first_part), index)
            first_part += len(tokens.parts)
        content = division.finish()
    hashes = SourceContent(content, digests)
    _content_entry(source, end_token).write_json(hashes)
    return hashes


def _has_documents(indices: Sequence[FileIndex], end_token: int | None) -> bool:
    return end_token is not None or all(index.has_starts for index in indices)


def _content_entry(source: TokenSource, end_token: int | None) -> CacheEntry:
    return CacheEntry(KIND, "content", [VERSION, *_inputs(source, end_token, 0.0)])


@dataclass(frozen=True)
class _Piece:
    """Part of a document that goes on in the next file."""

    file: FileParts
    first: int
    stop: int
    hash: int


class _Division:
    """Division of the documents of files, one file after another, among sides; without sides, only the hash
    of all documents is taken."""

    def __init__(self, sides: dict[bool, ExtentWriter], holdout: float, has_end: bool) -> None:
        self._sides, self._has_end = sides, has_end
        self._limit = math.ceil(holdout * 2.0**64)
        """Hash below which a document is held out."""
        self._digest = hashlib.sha256()
        self._pending: list[_Piece] = []
        """Pieces of a document whose end has not come."""

    def add_file(self, file: FileParts, index: FileIndex) -> None:
        """Add the documents of the next file."""
        count, first = len(index.stop_S), 0
        if not count:
            return
        last_is_open = not index.has_starts and not index.ended_S[-1]
        if self._pending:
            self._pending.append(_Piece(file, 0, int(index.stop_S[0]), 0))
            if count == 1 and last_is_open:
                return
            self._add_pending(bool(index.ended_S[0]))
            first = 1
        last = count - last_is_open
        for low in range(first, last, CHUNK_PIECES):
            self._add_documents(file, index, low, min(last, low + CHUNK_PIECES))
        if last_is_open:
            start = int(index.stop_S[last - 1]) if last else 0
            self._pending = [_Piece(file, start, int(index.stop_S[last]), int(index.hash_S[last]))]

    def finish(self) -> str:
        """Add the document that ends with the last file. Return the hash of all documents."""
        if self._pending:
            self._add_pending(is_ended=False)
        return self._digest.hexdigest()

    def _add_documents(self, file: FileParts, index: FileIndex, low: int, high: int) -> None:
        """Add whole documents of a file."""
        stop_D, ended_D = np.asarray(index.stop_S[low:high]), index.ended_S[low:high].astype(bool)
        first_D = np.append(index.stop_S[low - 1] if low else np.int64(0), stop_D[:-1])
        length_D = stop_D - first_D - ended_D
        is_full_D = length_D > 0
        first_D, stop_D, ended_D = first_D[is_full_D], stop_D[is_full_D], ended_D[is_full_D]
        hash_D = np.asarray(index.hash_S[low:high])[is_full_D]
        self._add_hashes(hash_D, length_D[is_full_D])
        heldout_D = self._is_heldout(hash_D)
        for held_out, side in self._sides.items():
            mine_D = heldout_D == held_out
            lacks_end_D = ~ended_D[mine_D] & self._has_end
            side.add(file, first_D[mine_D], stop_D[mine_D], lacks_end_D, np.ones(len(lacks_end_D), bool))

    def _add_pending(self, is_ended: bool) -> None:
        """Add the document that goes over several files, or ends with the last one."""
        pieces, self._pending = self._pending, []
        length = sum(piece.stop - piece.first for piece in pieces) - is_ended
        hash_D = np.array([pieces[0].hash if len(pieces) == 1 else _hash(pieces, is_ended)], np.uint64)
        self._add_hashes(hash_D, np.array([length]))
        side = self._sides.get(bool(self._is_heldout(hash_D)[0]))
        if side is None:
            return
        for number, piece in enumerate(pieces):
            is_last = number == len(pieces) - 1
            lacks_end = self._has_end and is_last and not is_ended
            first_D, stop_D = np.array([piece.first]), np.array([piece.stop])
            side.add(piece.file, first_D, stop_D, np.array([lacks_end]), np.array([number == 0]))

    def _add_hashes(self, hash_D: UInt64[np.ndarray, " D"], length_D: Int64[np.ndarray, " D"]) -> None:
        self._digest.update(np.stack([hash_D, length_D.astype(np.uint64)], axis=1).astype("<u8").tobytes())

    def _is_heldout(self, hash_D: UInt64[np.ndarray, " D"]) -> Bool[np.ndarray, " D"]:
        return np.ones(len(hash_D), bool) if self._limit >= 2**64 else hash_D < np.uint64(self._limit)


def _hash(pieces: Sequence[_Piece], is_ended: bool) -> int:
    """Return the hash of a document in several files, without its end token."""
    stops = [piece.stop for piece in pieces]
    stops[-1] -= is_ended
    sequences = [
        piece_of(piece.file.parts, piece.first, stop) for piece, stop in zip(pieces, stops, strict=True)
    ]
    return hash_tokens(chain.from_iterable(sequence.runs() for sequence in sequences))
