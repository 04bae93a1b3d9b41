"""Extents of a sequence of tokens, written from the documents of files, and cut out of another sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Int64

from harness.data.tokens.cached_arrays import ArrayWriter
from harness.data.tokens.token_sequence import TokenPart, TokenSequence


@dataclass(frozen=True)
class EndTokens:
    """An end token for each document whose file has none."""

    token: int

    def __len__(self) -> int:
        """Return the number of tokens of which an extent consists."""
        return 1

    def read(self, start: int, count: int) -> Int[np.ndarray, " count"]:
        """Return `count` end tokens."""
        return np.full(count, self.token)

    def advise(self, start: int, count: int) -> None:
        """Do nothing: the token lies in memory."""


@dataclass(frozen=True)
class FileParts:
    """Place of a file's parts among those of a sequence."""

    parts: tuple[TokenPart, ...]
    first_part: int
    end_P: Int64[np.ndarray, " P"]
    """Place in the file after the last token of each part."""

    @classmethod
    def of(cls, parts: tuple[TokenPart, ...], first_part: int) -> FileParts:
        """Return the place of parts of which the first has this number."""
        return cls(parts, first_part, np.cumsum([len(part) for part in parts], dtype=np.int64))


class ExtentWriter:
    """Writer of the extents of one side, and of the places of its documents."""

    def __init__(self, writer: ArrayWriter, side: str, end_part: int) -> None:
        self.num_tokens = 0
        self.num_documents = 0
        self._writer, self._side, self._end_part = writer, side, end_part
        self._append(*(np.empty(0, np.int64) for _ in range(4)))

    def add(
        self,
        file: FileParts,
        first_D: Int64[np.ndarray, " D"],
        stop_D: Int64[np.ndarray, " D"],
        lacks_end_D: Bool[np.ndarray, " D"],
        is_start_D: Bool[np.ndarray, " D"],
    ) -> None:
        """Add pieces of documents of a file, none of them empty, in order. `lacks_end_D`: an end token of our
        own follows; `is_start_D`: a document begins there."""
        if not len(first_D):
            return
        length_D = stop_D - first_D + lacks_end_D
        place_D = self.num_tokens + np.cumsum(length_D) - length_D
        part_E, start_E, length_E = self._split(file, *_runs(first_D, stop_D, lacks_end_D))
        self._append(part_E, start_E, self.num_tokens + np.cumsum(length_E), place_D[is_start_D])
        self.num_tokens += int(length_D.sum())
        self.num_documents += int(is_start_D.sum())

    def _split(
        self,
        file: FileParts,
        first_R: Int64[np.ndarray, " R"],
        stop_R: Int64[np.ndarray, " R"],
        lacks_end_R: Bool[np.ndarray, " R"],
    ) -> tuple[Int64[np.ndarray, " E"], Int64[np.ndarray, " E"], Int64[np.ndarray, " E"]]:
        """Return part, first token in it and length of the extents of runs, which parts divide."""
        start_P = np.append(np.int64(0), file.end_P[:-1])
        first_part_R = np.searchsorted(file.end_P, first_R, side="right")
        num_R = np.searchsorted(file.end_P, stop_R - 1, side="right") - first_part_R + 1
        last_R = np.cumsum(num_R)
        run_E = np.repeat(np.arange(len(num_R)), num_R)
        part_E = first_part_R[run_E] + np.arange(len(run_E)) - (last_R - num_R)[run_E]
        from_E = np.maximum(first_R[run_E], start_P[part_E])
        length_E = np.minimum(stop_R[run_E], file.end_P[part_E]) - from_E
        places = last_R[lacks_end_R]
        return (
            np.insert(part_E + file.first_part, places, self._end_part),
            np.insert(from_E - start_P[part_E], places, 0),
            np.insert(length_E, places, 1),
        )

    def _append(
        self,
        part_E: Int64[np.ndarray, " E"],
        start_E: Int64[np.ndarray, " E"],
        end_E: Int64[np.ndarray, " E"],
        place_D: Int64[np.ndarray, " D"],
    ) -> None:
        for name, values in (("part", part_E), ("start", start_E), ("end", end_E), ("document", place_D)):
            self._writer.append(f"{self._side}_{name}", values)


def cut_sequence(sequence: TokenSequence, first: int, stop: int) -> TokenSequence:
    """Return the tokens of a sequence from `first` to before `stop`."""
    if first >= stop:
        return TokenSequence.of_parts(())
    low, high = np.searchsorted(sequence.end_E, (first, stop - 1), side="right")
    before = int(sequence.end_E[low - 1]) if low else 0
    start_E = np.array(sequence.start_E[low : high + 1], np.int64)
    start_E[0] += first - before
    end_E = np.minimum(sequence.end_E[low : high + 1], stop) - first
    return TokenSequence(sequence.parts, np.asarray(sequence.part_E[low : high + 1]), start_E, end_E)


def piece_of(parts: Sequence[TokenPart], first: int, stop: int) -> TokenSequence:
    """Return the tokens of parts from `first` to before `stop`."""
    return cut_sequence(TokenSequence.of_parts(parts), first, stop)


def _runs(
    first_D: Int64[np.ndarray, " D"], stop_D: Int64[np.ndarray, " D"], lacks_end_D: Bool[np.ndarray, " D"]
) -> tuple[Int64[np.ndarray, " R"], Int64[np.ndarray, " R"], Bool[np.ndarray, " R"]]:
    """Return first place, stop, and lack of an end of the runs of pieces that follow one another."""
    begins_D = np.ones(len(first_D), bool)
    begins_D[1:] = (first_D[1:] != stop_D[:-1]) | lacks_end_D[:-1]
    first_R = np.flatnonzero(begins_D)
    last_R = np.append(first_R[1:], len(first_D)) - 1
    return first_D[first_R], stop_D[last_R], lacks_end_D[last_R]
