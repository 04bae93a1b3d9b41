"""Files of logged curves as tables of text: CSV by its separator, JSON lines, and Parquet."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from harness.core.errors import UserError
from harness.core.files.expansion import check_expansion, open_expanded

CELL_BYTES = 16
"""Bytes of a cell in memory, at most; texts of a dictionary are shared."""
_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_FORMAT_ERRORS = (UnicodeDecodeError, pl.exceptions.PolarsError, pl.exceptions.PanicException)


def read_log_file(path: Path, is_known: Callable[[str], bool]) -> pl.DataFrame:
    """Read a file by its first bytes, not by its name. Cells of CSV and JSON lines are text.

    is_known: true for names of columns that tell which separator a CSV file has; of JSON lines only such keys
    are read.
    Raises UserError for a file that cannot be read.
    """
    kind = "CSV"
    try:
        with path.open("rb") as file:
            start = file.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip()
        if start.startswith(b"PAR1"):
            kind = "Parquet"
            _check_table_size(path)
            return pl.read_parquet(path, glob=False)
        if start.startswith((b"{", b"[")):
            kind = "JSON lines"
            return _read_json_lines(path, is_known)
        _check_text_size(path, start)
        return pl.read_csv(path, infer_schema=False, separator=_separator(path, is_known), glob=False)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except _FORMAT_ERRORS as error:
        raise UserError(f"{path}: is not a {kind} table ({str(error).splitlines()[0]})") from error


def _check_table_size(path: Path) -> None:
    """Raise UserError if a Parquet file claims more rows than a file of its size can mean."""
    table = pl.scan_parquet(path, glob=False)
    num_cells = table.select(pl.len()).collect().item() * len(table.collect_schema())
    check_expansion(str(path), CELL_BYTES * num_cells, path.stat().st_size)


def _check_text_size(path: Path, start: bytes) -> None:
    """Raise UserError if a compressed file, which Polars expands in memory, is too large then."""
    compression = next((name for magic, name in _COMPRESSIONS.items() if start.startswith(magic)), None)
    if compression:
        with open_expanded(path, compression, str(path)) as stream:
            while stream.read(2**20):
                pass


def _separator(path: Path, is_known: Callable[[str], bool]) -> str:
    """Return the separator that finds most of the known columns in the header. Raises UserError if the header
    is one column that none of them divides."""
    headers = {
        separator: pl.read_csv(path, infer_schema=False, separator=separator, n_rows=0, glob=False).columns
        for separator in _SEPARATORS
    }
    num_known = {
        separator: sum(is_known(name.strip()) for name in names) for separator, names in headers.items()
    }
    if all(len(names) == 1 for names in headers.values()):
        raise UserError(
            f"{path}: the first line is one column, '{headers[','][0]}'. Separate the columns by "
            f"{', '.join([*_SEPARATORS.values()][:-1])} or {[*_SEPARATORS.values()][-1]}."
        )
    return max(_SEPARATORS, key=lambda separator: (num_known[separator], len(headers[separator])))


def _read_json_lines(path: Path, is_known: Callable[[str], bool]) -> pl.DataFrame:
    """Read one JSON object a line; a column that no line has is absent."""
    rows = [
        _parse_line(line, f"{path}: line {number}")
        for number, line in enumerate(path.read_text("utf-8-sig").split("\n"), 1)
        if line.strip()
    ]
    names = dict.fromkeys(name for row in rows for name in row if is_known(name))
    cells = {name: [_cell(row.get(name)) for row in rows] for name in names}
    return pl.DataFrame(cells, schema=dict.fromkeys(names, pl.String))


def _parse_line(line: str, place: str) -> dict[str, Any]:
    """Parse one line. NaN and Infinity are numbers, as Python writes them."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{place} is not JSON ({reason}). Write one object a line.") from error
    if not isinstance(row, dict):
        raise UserError(f'{place} is not a JSON object. Write one object a line: {{"variant": ..., }}.')
    return _flatten(row)


def _flatten(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return an object without nested ones: their keys become `outer.inner`. Lists are left out."""
    cells: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            cells |= _flatten(value, f"{prefix}{name}.")
        elif not isinstance(value, list):
            cells[f"{prefix}{name}"] = value
    return cells


def _cell(value: Any) -> str | None:
    """Return a JSON value as the text that a CSV file has for it."""
    return None if value is None else str(value)
