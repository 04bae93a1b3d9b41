"""Documents of JSON lines: an object a line, of which one value is the text."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from typing import IO

from harness.core.errors import UserError
from harness.data.documents.compressed import open_text
from harness.data.documents.text_column import TextColumn

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
BLOCK = 2**20
"""Bytes read at a time."""


def read_lines(stream: IO[bytes], start: int = 0, stop: float = math.inf) -> Iterator[bytes]:
    """Yield the lines that begin in bytes [start, stop) of a stream."""
    place = start
    if start:
        stream.seek(start - 1)
        place += len(stream.readline()) - 1
    while place < stop and (line := stream.readline()):
        yield line
        place += len(line)


def count_lines_before(stream: IO[bytes], start: int) -> int:
    """Return the number of lines of a stream that begin before `start`."""
    num_lines, left = 1, start - 1
    while left > 0 and (block := stream.read(min(left, BLOCK))):
        num_lines += block.count(b"\n")
        left -= len(block)
    return num_lines if start else 0


def json_texts(lines: Iterable[bytes], column: TextColumn, lines_before: Callable[[], int]) -> Iterator[str]:
    """Yield the texts of lines. `lines_before`: the number of the file's lines before them, wanted for
    messages and for a byte order mark. Raises UserError, and UnicodeError for bytes that are not UTF-8."""
    for index, line in enumerate(lines, 1):

        def place(index: int = index) -> str:
            return f"line {lines_before() + index} of {column.file.name}"

        text = line.decode()
        if not text.strip():
            continue
        row = _parse(text)
        if row is None and index == 1 and line.startswith(BYTE_ORDER_MARK) and not lines_before():
            text = line.removeprefix(BYTE_ORDER_MARK).decode()
            if not text.strip():
                continue
            row = _parse(text)
        if row is None:
            raise _no_object(column, text, place())
        yield column.text(column.value(row, place), place)


def _parse(text: str) -> dict | None:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _no_object(column: TextColumn, line: str, place: str) -> UserError:
    """Return the error for a line. A file that is one array, or objects over several lines, is told apart."""
    problem, way_out = f"{place} is not a JSON object", "Correct it."
    with open_text(column.file, column.where) as stream:
        first_bytes = stream.read(BLOCK).removeprefix(BYTE_ORDER_MARK).lstrip()
    if first_bytes.startswith(b"["):
        problem += ": the file is one array, and must have a line for each object"
        way_out = f"Write them with `{_jq_command(column, '.[]')}`."
    elif line.strip() == "{":
        problem += ", which ends further down, and must have a line to itself"
        way_out = f"Write it so with `{_jq_command(column, '.')}`."
    return UserError(f"{column.key}.path={column.path}: {problem}. {way_out}")


def _jq_command(column: TextColumn, query: str) -> str:
    program = {".gz": "gzip", ".zst": "zstd", ".bz2": "bzip2"}.get(column.file.suffix)
    name = column.file.name
    plain = name.removesuffix(column.file.suffix) if program else name
    command = f"jq -c '{query}' {'' if program else name}".rstrip()
    return f"{f'{program} -dc {name} | ' if program else ''}{command} > lines-{plain}"
