"""Best-fit-decreasing packing of documents into rows (Ding et al. 2024, arXiv:2404.10830).

Pieces are placed from the longest to the shortest, each into the row with the least room that holds it. Equal
pieces go into rows of equal room together, so the work grows with the number of different lengths and rooms,
not with that of the documents.
"""

from __future__ import annotations

from bisect import bisect_left, insort

import numpy as np
from jaxtyping import Int

BLOCK_DOCUMENTS = 2**18
"""Documents that are packed together, in the order in which they lie: this bounds the memory, and rows hold
documents that lie near each other."""


def cut_documents(
    start_D: Int[np.ndarray, " D"], length_D: Int[np.ndarray, " D"], row_length: int
) -> tuple[Int[np.ndarray, " P"], Int[np.ndarray, " P"]]:
    """Return start and length of the pieces of documents: of a longer one than a row, rows and a rest."""
    count_D = -(-length_D // row_length)
    document_P = np.repeat(np.arange(len(length_D)), count_D)
    before_P = (np.arange(len(document_P)) - np.repeat(np.cumsum(count_D) - count_D, count_D)) * row_length
    return start_D[document_P] + before_P, np.minimum(row_length, length_D[document_P] - before_P)


def pack_best_fit(length_P: Int[np.ndarray, " P"], row_length: int) -> Int[np.ndarray, " P"]:
    """Return the row of each piece. Rows are numbered by their first piece. Pieces are at most `row_length`
    and at least 1 long."""
    by_length = np.argsort(-length_P, kind="stable")
    lengths, first_L = np.unique(-length_P[by_length], return_index=True)
    ends = [*first_L[1:].tolist(), len(by_length)]
    rows = _Rows(row_length)
    row_P = np.empty(len(length_P), np.int64)
    for length, first, end in zip((-lengths).tolist(), first_L.tolist(), ends, strict=True):
        row_P[by_length[first:end]] = rows.place(length, end - first)
    first_R = np.full(rows.count, len(length_P))
    np.minimum.at(first_R, row_P, np.arange(len(length_P)))
    number_R = np.empty(rows.count, np.int64)
    number_R[np.argsort(first_R)] = np.arange(rows.count)
    return number_R[row_P]


class _Rows:
    """Rows by the room that is left in them."""

    def __init__(self, row_length: int):
        self.row_length, self.count = row_length, 0
        self._rooms: list[int] = []
        """Rooms that rows have, rising."""
        self._rows: dict[int, list[np.ndarray]] = {}
        """Rows of each room, in the order in which they came to have it."""

    def place(self, length: int, count: int) -> Int[np.ndarray, " P"]:
        """Return the rows that `count` pieces of a length go into, one after another."""
        rows_by_turn: list[np.ndarray] = []
        while count:
            index = bisect_left(self._rooms, length)
            if index < len(self._rooms):
                room = self._rooms[index]
                rows = self._take(index, -(-count // (room // length)))
            else:
                room, num_rows = self.row_length, -(-count // (self.row_length // length))
                rows = np.arange(self.count, self.count + num_rows)
                self.count += num_rows
            rows_by_turn.append(self._fill(rows, room, length, count))
            count -= len(rows_by_turn[-1])
        return np.concatenate(rows_by_turn)

    def _fill(self, rows: np.ndarray, room: int, length: int, count: int) -> np.ndarray:
        """Put pieces into rows of a room, as many as each holds, and return the row of each piece."""
        per_row = room // length
        row_P = np.repeat(rows, per_row)[:count]
        full = len(row_P) // per_row
        self._give(rows[:full], room - per_row * length)
        self._give(rows[full:], room - (len(row_P) - full * per_row) * length)
        return row_P

    def _take(self, index: int, count: int) -> np.ndarray:
        """Take at most `count` rows of a room."""
        room = self._rooms[index]
        rows = np.concatenate(self._rows[room])
        if len(rows) > count:
            self._rows[room] = [rows[count:]]
            return rows[:count]
        del self._rows[room], self._rooms[index]
        return rows

    def _give(self, rows: np.ndarray, room: int) -> None:
        """Keep rows that have this room."""
        if len(rows) and room:
            if room not in self._rows:
                insort(self._rooms, room)
            self._rows.setdefault(room, []).append(rows)
