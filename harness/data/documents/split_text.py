"""Documents of a plain text, which a line `<|endoftext|>` separates.

A text may hold gigabytes without such a line. So a document is also cut where a whole leaf of `LEAF` bytes
before holds none: at the first line end of the next leaf. Where documents begin depends on the bytes alone,
so ranges of whole leaves can be read apart, each with a look back of at most a leaf.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import IO

SEPARATOR = b"<|endoftext|>"
LEAF = 2**25
REACH = 2**20
"""Bytes after the begin of a leaf within which a line must end, or a document is cut inside a line."""
BLOCK = 2**20
"""Bytes read at a time."""


def split_text(stream: IO[bytes], start: int = 0, stop: float = math.inf) -> Iterator[bytes]:
    """Yield the documents that begin in bytes [start, stop) of a stream. Both are multiples of LEAF; infinity
    stands for the end. A stream that cannot be sought has a start of 0."""
    last, begin = _look_back(stream, start) if start else (-1, 0)
    first_edge = start or LEAF
    base = max(start - 1, 0)
    if start:
        stream.seek(base)
    text = _Text(stream, base)
    for end, next_begin in _gaps(text, max(start, begin), first_edge, last):
        if begin >= start:
            yield text.document(begin, end)
        if next_begin >= stop:
            return
        begin = next_begin
        text.forget(begin - 1)
    if begin >= start:
        yield text.document(begin, text.end)


def _look_back(stream: IO[bytes], start: int) -> tuple[int, int]:
    """Return begin and end of the last separator that begins in the leaf before `start`; -1 if there is
    none."""
    for stop in range(start, start - LEAF, -BLOCK):
        low = max(stop - BLOCK, start - LEAF)
        base = max(low - 1, 0)
        stream.seek(base)
        text, last_line = _Text(stream, base), (-1, -1)
        while separator := text.separator(max(low, last_line[1]), stop - 1):
            last_line = separator
        if last_line != (-1, -1):
            return last_line
    return -1, -1


def _gaps(text: _Text, place: int, edge: int, last: int) -> Iterator[tuple[int, int]]:
    """Yield (end of a document, begin of the next) from `place` on. `edge`: the first begin of a leaf at
    which a document may be cut; `last`: begin of the separator before."""
    while True:
        if line := text.separator(place, edge):
            last, place = line
            yield line
        elif text.end <= edge:
            return
        else:
            is_giant = place <= edge and (last < 0 or last < edge - LEAF)
            cut = text.cut(edge) if is_giant else None
            place = cut or max(place, edge + 1)
            if cut:
                yield cut, cut
            edge += LEAF


class _Text:
    """Bytes of a stream from `base` on, as far as they are loaded."""

    def __init__(self, stream: IO[bytes], base: int) -> None:
        self._stream, self._base, self._content = stream, base, bytearray()
        self._is_complete = False

    @property
    def end(self) -> int:
        return self._base + len(self._content)

    def document(self, begin: int, end: int) -> bytes:
        return bytes(self._content[begin - self._base : end - self._base]).removesuffix(b"\n")

    def forget(self, end: int) -> None:
        """Drop the bytes before `end`."""
        del self._content[: max(0, end - self._base)]
        self._base = max(self._base, end)

    def separator(self, place: int, last: int) -> tuple[int, int] | None:
        """Return begin and end of the first separator that begins in [place, last]."""
        while True:
            index = self._content.find(SEPARATOR, place - self._base, last - self._base + len(SEPARATOR))
            if index >= 0:
                begin = index + self._base
                end = self._line_end(begin + len(SEPARATOR)) if self._begins_line(begin) else None
                if end is not None:
                    return begin, end
                place = begin + 1
            elif self._is_complete or self.end >= last + len(SEPARATOR):
                return None
            else:
                place = max(place, self.end - len(SEPARATOR) + 1)
                self._load(self.end + 1)

    def cut(self, edge: int) -> int | None:
        """Return the place after `edge` at which a document without separators is cut; None if the text ends
        before."""
        reach = edge + REACH
        self._load(reach + len(SEPARATOR) + 1)
        line_end = self._content.find(b"\n", edge - self._base, reach - self._base)
        if line_end >= 0:
            place = line_end + 1 + self._base
        elif self.end > reach:
            place = self._character_begin(reach)
            # Within its line this is no separator, and must not become one.
            place += self._content.startswith(SEPARATOR, place - self._base)
        else:
            return None
        self._load(place + 1)
        return place if place < self.end else None

    def _character_begin(self, place: int) -> int:
        """Return the last begin of a UTF-8 character at or before `place`."""
        begins = (place - back for back in range(4))
        return next((at for at in begins if self._content[at - self._base] & 0xC0 != 0x80), place)

    def _begins_line(self, place: int) -> bool:
        return place == 0 or self._content[place - 1 - self._base] == ord("\n")

    def _line_end(self, place: int) -> int | None:
        """Return the end of a line that is over at `place`, but for carriage returns; None if it goes on."""
        while True:
            self._load(place + 1)
            if place >= self.end:
                return place
            character = self._content[place - self._base]
            if character != ord("\r"):
                return place + 1 if character == ord("\n") else None
            place += 1

    def _load(self, end: int) -> None:
        while self.end < end and not self._is_complete:
            block = self._stream.read(BLOCK)
            self._content += block
            self._is_complete = not block
