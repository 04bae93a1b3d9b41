"""Rows of whole documents: the plan that best-fit packing makes of a source, and the rows that it leads to.

A plan is a folder of the cache: the first token and the length of each piece of a document, row by row, and
the number of pieces before each row. They are memory-mapped. A row stands by itself: unlike windows, no two
rows share a token.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, Int32, Int64

from harness.core.cache.cache_dir import cache_dir
from harness.core.cache.cache_entries import CacheEntry
from harness.core.errors import UserError
from harness.core.hashing import hash_json
from harness.core.progress.report import report
from harness.core.progress.waiting import hold_lock
from harness.data.order.best_fit import BLOCK_DOCUMENTS, cut_documents, pack_best_fit
from harness.data.tokens.token_sequence import TokenSequence
from harness.data.tokens.tokens import Tokens

PADDING = -1
"""Value of a place in a row that holds no token."""
VERSION = 1
"""Version of the plans: others are made again."""
WAY_OUT = "choose another cache with AB_HARNESS_CACHE=FOLDER"
_DTYPES = {"start_P": np.dtype(np.int64), "length_P": np.dtype(np.int32), "first_R": np.dtype(np.int64)}
"""Arrays of a plan; `first_R` has one value more than there are rows."""


@dataclass(frozen=True)
class PackingFacts:
    """Sizes of a plan."""

    rows: int
    row_length: int
    """Places of a row."""
    tokens: int
    """Number of tokens in all rows."""
    documents: int
    cut: int
    """Number of documents that are longer than a row, and therefore cut."""

    @property
    def padding(self) -> float:
        """Share of the places that hold no token."""
        return 1 - self.tokens / (self.rows * self.row_length)


@dataclass(frozen=True)
class PackedRows:
    """Tokens of a source in rows of `length` + 1 places, filled up with PADDING."""

    tokens: TokenSequence
    length: int
    facts: PackingFacts
    start_P: Int64[np.ndarray, " P"]
    """Place of the first token of each piece."""
    length_P: Int32[np.ndarray, " P"]
    """Tokens of each piece."""
    first_R: Int64[np.ndarray, " R+1"]
    """Number of pieces before each row, and of all."""

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.facts.rows

    def __getitem__(self, row_B: Int[np.ndarray, " B"]) -> Int32[np.ndarray, "B T+1"]:
        piece_P, first_B = self._pieces(row_B)
        rows_BT = np.full((len(first_B), self.length + 1), PADDING, np.int32)
        if len(first_B):
            length_P = self.length_P[piece_P]
            used_B = np.add.reduceat(length_P, first_B)
            is_token_BT = np.arange(self.length + 1) < used_B[:, None]
            rows_BT[is_token_BT] = self.tokens.ranges(self.start_P[piece_P], length_P)
        return rows_BT

    def document_lengths(self, row_B: Int[np.ndarray, " B"]) -> Int32[np.ndarray, " B"]:
        """Return the tokens of the longest document of each row, or of a piece of one that is longer."""
        piece_P, first_B = self._pieces(row_B)
        return np.maximum.reduceat(self.length_P[piece_P], first_B)

    def _pieces(self, row_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the pieces of rows, one row after another, and the place of each row's first."""
        row_B = np.asarray(row_B, np.int64)
        piece_B, count_B = self.first_R[row_B], self.first_R[row_B + 1] - self.first_R[row_B]
        first_B = np.cumsum(count_B) - count_B
        return np.repeat(piece_B - first_B, count_B) + np.arange(count_B.sum()), first_B


def open_packed_rows(tokens: Tokens, length: int, key: str) -> PackedRows:
    """Return the rows of a source, packing it first if no plan is in the cache. Raises UserError if nothing
    tells where its documents begin. `key`: config key of the source in messages."""
    if tokens.starts_D is None:
        raise UserError(
            f"data.packing=best_fit needs documents, but nothing tells where those of {key} begin. Set "
            "data.end_token to the token that ends one, or set data.packing=concatenate."
        )
    name = hash_json([tokens.key, "best_fit", length, BLOCK_DOCUMENTS, VERSION])
    folder, entry = cache_dir("tokens") / name, CacheEntry("surveys", "packing", name)
    stored = entry.read_json()
    if stored is None or not _is_whole(folder, stored["sizes"]):
        with hold_lock(folder.with_suffix(".lock"), "packs documents", WAY_OUT):
            stored = entry.read_json()
            if stored is None or not _is_whole(folder, stored["sizes"]):
                facts = _build(folder, tokens.starts_D, len(tokens.train), length)
                stored = {"facts": asdict(facts), "sizes": _sizes(folder)}
                entry.write_json(stored)
    os.utime(folder)  # the age of an entry counts from its last use
    arrays = {field: np.memmap(folder / field, dtype, mode="r") for field, dtype in _DTYPES.items()}
    return PackedRows(tokens.train, length, PackingFacts(**stored["facts"]), **arrays)


def _build(folder: Path, start_D: np.ndarray, num_tokens: int, length: int) -> PackingFacts:
    """Build a plan. The lock is held, so an existing temporary folder belongs to a dead builder."""
    draft = folder.with_suffix(".building")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    rows = pieces = tokens = cut = 0
    with ExitStack() as stack:
        files = {name: stack.enter_context((draft / name).open("wb")) for name in _DTYPES}
        for length_D, start_P, length_P, row_P in _packed_blocks(start_D, num_tokens, length + 1):
            count_R = np.bincount(row_P)
            arrays = {
                "start_P": start_P,
                "length_P": length_P,
                "first_R": pieces + np.cumsum(count_R) - count_R,
            }
            for name, array in arrays.items():
                files[name].write(array.astype(_DTYPES[name]).data)
            rows, pieces, tokens = rows + len(count_R), pieces + len(row_P), tokens + int(length_P.sum())
            cut += int(np.sum(length_D > length + 1))
        files["first_R"].write(np.array([pieces], _DTYPES["first_R"]).data)
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)
    return PackingFacts(rows, length + 1, tokens, len(start_D), cut)


def _packed_blocks(
    start_D: np.ndarray, num_tokens: int, row_length: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield the lengths of some documents, and their pieces by row: start, length and row, counted from 0."""
    for first in range(0, len(start_D), BLOCK_DOCUMENTS):
        report("packs documents", first, len(start_D))
        start_B = np.asarray(start_D[first : first + BLOCK_DOCUMENTS + 1], np.int64)
        start_B = start_B if len(start_B) > BLOCK_DOCUMENTS else np.append(start_B, num_tokens)
        length_D = np.diff(start_B)
        start_P, length_P = cut_documents(start_B[:-1], length_D, row_length)
        if not len(length_P):
            continue
        row_P = pack_best_fit(length_P, row_length)
        order = np.argsort(row_P, kind="stable")
        yield length_D, start_P[order], length_P[order], row_P[order]


def _sizes(folder: Path) -> dict[str, list[int]]:
    """Return size and time of each array's file."""
    states = {name: (folder / name).stat() for name in _DTYPES}
    return {name: [state.st_size, state.st_mtime_ns] for name, state in states.items()}


def _is_whole(folder: Path, sizes: dict[str, list[int]]) -> bool:
    """Return whether the files are those that were written."""
    try:
        return _sizes(folder) == sizes
    except FileNotFoundError:
        return False
