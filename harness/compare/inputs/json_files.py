"""JSON lines and JSON documents as tables of cells."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import polars as pl

from harness.core.errors import UserError

BLOCK_BYTES = 2**24
"""Bytes of lines that are parsed at once."""
_NOT_FINITE = re.compile(rb":\s*(NaN|-?Infinity)(?=\s*[,}])")


@dataclass(frozen=True)
class JsonTable:
    """Rows of a JSON file."""

    frame: pl.DataFrame
    is_cut: bool = False
    """True if the last line, which has no line end, is no whole object: its writer was killed."""
    num_skipped: int = 0
    """Broken lines that were left out."""


def read_json_file(
    source: Path | bytes, place: str, is_known: Callable[[str], bool], skip_broken: bool = False
) -> JsonTable:
    """Read JSON with one object a line, a list of objects, or an object of columns.

    Nested objects become columns `outer.inner`; lists are left out. Only columns that `is_known` accepts are
    read. skip_broken: leave out lines that are no JSON object. Raises UserError, with the number of the line,
    for such a line otherwise.
    """
    content = source if isinstance(source, bytes) else source.read_bytes()
    content = content.removeprefix(b"\xef\xbb\xbf")
    if (document := _document(content)) is not None:
        return JsonTable(_frame_of_rows(document, is_known))
    reader = _LineReader(place, is_known, skip_broken)
    frames = [reader.read(block) for block in _blocks(io.BytesIO(content))]
    return JsonTable(_join(frames), reader.is_cut, reader.num_skipped)


def _document(content: bytes) -> list[Mapping[str, Any]] | None:
    """Return the rows of one document; None for one object a line."""
    start = content.lstrip()[:1]
    first_line = content.lstrip().split(b"\n", 1)[0]
    if start == b"{" and _parsed(first_line) is not None and b"\n" in content.strip():
        return None
    document = _parsed(content)
    if isinstance(document, list) and all(isinstance(row, dict) for row in document):
        return document
    if isinstance(document, dict) and document:
        columns = [[*cells.values()] if isinstance(cells, dict) else cells for cells in document.values()]
        if all(isinstance(cells, list) for cells in columns) and len({*map(len, columns)}) == 1:
            return [dict(zip(document, cells, strict=True)) for cells in zip(*columns, strict=True)]
    return None


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _blocks(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield whole lines, about BLOCK_BYTES at once."""
    while block := stream.read(BLOCK_BYTES):
        yield block + stream.readline()


class _LineReader:
    """Reader of blocks of lines, which counts the lines for messages."""

    def __init__(self, place: str, is_known: Callable[[str], bool], skip_broken: bool) -> None:
        self.is_cut, self.num_skipped = False, 0
        self._place, self._is_known, self._skip_broken = place, is_known, skip_broken
        self._num_lines = self._num_rows = 0

    def read(self, block: bytes) -> pl.DataFrame:
        """Parse a block at once, or line by line where that fails."""
        try:
            frame = _parse_block(block, self._is_known)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
            frame = _frame_of_rows(self._parse_lines(block), self._is_known)
        self._num_lines += block.count(b"\n")
        self._num_rows += frame.height
        return frame

    def _parse_lines(self, block: bytes) -> Iterator[Mapping[str, Any]]:
        num_rows = self._num_rows
        lines = block.decode("utf-8").split("\n")
        for number, line in enumerate(lines, self._num_lines + 1):
            if not line.strip():
                continue
            is_unended = number == self._num_lines + len(lines)
            row, reason = _parse_line(line)
            if row is not None:
                num_rows += 1
                yield row
            elif reason and num_rows and is_unended:
                self.is_cut = True
            elif self._skip_broken:
                self.num_skipped += 1
            else:
                raise UserError(self._broken(number, reason))

    def _broken(self, number: int, reason: str) -> str:
        problem = f"is not JSON ({reason})" if reason else "is not a JSON object"
        return (
            f"{self._place}: line {number} {problem}. Write one object a line, "
            'such as {"variant": ...}, or leave out such lines with --skip-broken.'
        )


def _parse_line(line: str) -> tuple[dict[str, Any] | None, str]:
    """Return an object, or None and why the line is no JSON. NaN and Infinity are numbers, as Python writes
    them."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return None, str(error).splitlines()[0]
    return (row, "") if isinstance(row, dict) else (None, "")


def _parse_block(block: bytes, is_known: Callable[[str], bool]) -> pl.DataFrame:
    """Parse a block by Polars, which knows NaN and Infinity as texts only."""
    if b"NaN" in block or b"Infinity" in block:
        block = _NOT_FINITE.sub(rb':"\1"', block)
    frame = pl.read_ndjson(io.BytesIO(block), infer_schema_length=None)
    lists = [name for name, kind in frame.schema.items() if isinstance(kind, pl.List)]
    return flat_columns(frame.drop(lists), is_known)


def flat_columns(frame: pl.DataFrame, is_known: Callable[[str], bool] = bool) -> pl.DataFrame:
    """Return the known columns of a table, those inside of structs as `outer.inner`."""
    expressions: list[pl.Expr] = []

    def collect(expression: pl.Expr, name: str, kind: Any) -> None:
        if isinstance(kind, pl.Struct):
            for item in kind.fields:
                collect(expression.struct.field(item.name), f"{name}.{item.name}", item.dtype)
        elif is_known(name):
            expressions.append(expression.alias(name))

    for name, kind in frame.schema.items():
        collect(pl.col(name), name, kind)
    return frame.select(expressions)


def _frame_of_rows(rows: Iterable[Mapping[str, Any]], is_known: Callable[[str], bool]) -> pl.DataFrame:
    """Return rows as columns of text; a column that no row has is absent."""
    columns: dict[str, list[str | None]] = {}
    height = 0
    for row in rows:
        for name, value in _flatten(row).items():
            if is_known(name):
                cells = columns.setdefault(name, [])
                cells.extend([None] * (height - len(cells)))
                cells.append(None if value is None else str(value))
        height += 1
    padded = {name: cells + [None] * (height - len(cells)) for name, cells in columns.items()}
    return pl.DataFrame(padded, schema=dict.fromkeys(padded, pl.String))


def _flatten(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return an object without nested ones: their keys become `outer.inner`. Lists are left out."""
    cells: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            cells |= _flatten(value, f"{prefix}{name}.")
        elif not isinstance(value, list):
            cells[f"{prefix}{name}"] = value
    return cells


def _join(frames: list[pl.DataFrame]) -> pl.DataFrame:
    """Join blocks. A column of several types is float64 if all are numbers, else text."""
    types: dict[str, set[Any]] = {}
    for frame in frames:
        for name, kind in frame.schema.items():
            types.setdefault(name, set()).add(kind)
    mixed = {
        name: pl.Float64 if all(kind.is_numeric() or kind == pl.Null for kind in kinds) else pl.String
        for name, kinds in types.items()
        if len(kinds) > 1
    }
    casts = [
        frame.cast({name: kind for name, kind in mixed.items() if name in frame.columns}) for frame in frames
    ]
    return pl.concat(casts, how="diagonal") if casts else pl.DataFrame()
