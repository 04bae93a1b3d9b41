"""CSV files as people have them: separator, encoding, line ends, and lines before the header."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from harness.core.errors import UserError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_HEAD_BYTES = 2**16
"""Bytes from the start of a file in which its header is looked for."""
_MAX_LINES_BEFORE = 30
"""Lines before a header, such as comments and titles."""
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class CsvLayout:
    """Form of a CSV file."""

    separator: str
    num_lines_before: int
    """Lines before the header."""
    names: tuple[str, ...]
    """Cells of the header."""
    end_of_line: str


def read_csv_file(
    source: Path | bytes, place: str, is_known: Callable[[str], bool], is_number: Callable[[str], bool]
) -> pl.DataFrame:
    """Read a CSV file, or its content, with its cells as text, empty ones as null.

    is_known: true for names of columns that tell separator and header. is_number: true for names of columns
    that are read as float64, where every cell of them allows it.
    Raises UserError for a file without columns and for a line with more cells than the header.
    """
    source = _as_utf8(source)
    head = source[:_HEAD_BYTES] if isinstance(source, bytes) else _read_head(source)
    layout = find_layout(head, place, is_known)
    try:
        return _read(source, layout, [name for name in layout.names if is_number(name.strip())])
    except pl.exceptions.PolarsError:
        pass
    try:
        return _without_headers(_read(source, layout, []))
    except pl.exceptions.ComputeError as error:
        if "more fields" in str(error):
            raise UserError(_overlong_line(source, layout, place)) from error
        raise


def _as_utf8(source: Path | bytes) -> Path | bytes:
    """Return a file, or its content in UTF-8 if it is in UTF-16, as spreadsheets save Unicode text."""
    head = source[:2] if isinstance(source, bytes) else _read_head(source, 2)
    if head not in _UTF16:
        return source
    content = source if isinstance(source, bytes) else source.read_bytes()
    return content.decode("utf-16").encode()


def _read_head(path: Path, num_bytes: int = _HEAD_BYTES) -> bytes:
    with path.open("rb") as stream:
        return stream.read(num_bytes)


def find_layout(head: bytes, place: str, is_known: Callable[[str], bool]) -> CsvLayout:
    """Find the header: the first line, or below comments and titles the first with two known columns.

    The separator is the one that finds most of the known columns. Raises UserError if the header is one
    column that no separator divides.
    """
    text = head.decode("utf-8-sig", "replace")
    end_of_line = "\r" if "\r" in text and "\n" not in text else "\n"
    lines = text.split(end_of_line)[: _MAX_LINES_BEFORE + 1]
    first = next((number for number, line in enumerate(lines) if not _is_remark(line)), 0)
    scores = [_best_separator(line, is_known) for line in lines]
    number = next((n for n, (num_known, _, _) in enumerate(scores) if num_known > 1 and n >= first), first)
    _, num_cells, separator = scores[number]
    if num_cells == 1:
        raise UserError(
            f"{place}: the first line is one column, '{lines[number].strip()[:80]}'. Separate the columns by "
            f"{', '.join([*SEPARATORS.values()][:-1])} or {[*SEPARATORS.values()][-1]}."
        )
    return CsvLayout(separator, number, tuple(_cells(lines[number], separator)), end_of_line)


def is_headed(head: bytes, is_known: Callable[[str], bool]) -> bool:
    """Return True if the first line that is no remark has two known columns."""
    text = head.decode("utf-16" if head[:2] in _UTF16 else "utf-8-sig", "replace")
    line = next((line for line in text.splitlines() if not _is_remark(line)), "")
    return _best_separator(line, is_known)[0] > 1


def _is_remark(line: str) -> bool:
    """Return True for a blank line, a comment, and the line with which spreadsheets name the separator."""
    text = line.strip()
    return not text or text.startswith("#") or text.lower().startswith("sep=")


def _best_separator(line: str, is_known: Callable[[str], bool]) -> tuple[int, int, str]:
    """Return (known columns, columns, separator) of the separator that divides a line best."""
    candidates = ((separator, _cells(line, separator)) for separator in SEPARATORS)
    scores = [
        (sum(is_known(cell.strip()) for cell in cells), len(cells), separator)
        for separator, cells in candidates
    ]
    return max(scores, key=lambda score: score[:2])


def _cells(line: str, separator: str) -> list[str]:
    return next(csv.reader([line.rstrip("\r\n")], delimiter=separator), [""])


def _read(source: Path | bytes, layout: CsvLayout, number_columns: Sequence[str]) -> pl.DataFrame:
    return pl.read_csv(
        source if isinstance(source, Path) else io.BytesIO(source),
        infer_schema=False, separator=layout.separator, skip_lines=layout.num_lines_before,
        eol_char=layout.end_of_line, schema_overrides=dict.fromkeys(number_columns, pl.Float64), glob=False,
    )  # fmt: skip


def _without_headers(frame: pl.DataFrame) -> pl.DataFrame:
    """Drop rows that repeat the header, as files have them that were joined."""
    is_header = pl.all_horizontal(pl.col(name).fill_null("") == name for name in frame.columns)
    return frame.filter(~is_header)


def _overlong_line(source: Path | bytes, layout: CsvLayout, place: str) -> str:
    """Return the sentence about the first line with more cells than the header."""
    content = source if isinstance(source, bytes) else source.read_bytes()
    lines = content.decode("utf-8-sig", "replace").splitlines(keepends=True)[layout.num_lines_before :]
    reader = csv.reader(lines, delimiter=layout.separator)
    for cells in reader:
        if len(cells) > len(layout.names):
            line = reader.line_num + layout.num_lines_before
            return (
                f"{place}: line {line} has {len(cells)} cells, but the header has {len(layout.names)}. Put "
                f"quotation marks around a cell that holds one of the {SEPARATORS[layout.separator]}, or "
                "mend the line."
            )
    return f"{place}: a line has more cells than the header. Mend that line."
