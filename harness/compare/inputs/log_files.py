"""Files of logged curves as tables: CSV, JSON lines and Parquet, known by their first bytes."""

from __future__ import annotations

import lzma
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from harness.compare.inputs.csv_files import read_csv_file
from harness.compare.inputs.json_files import flat_columns, read_json_file
from harness.core.errors import UserError
from harness.core.files.expansion import check_expansion, open_expanded

CELL_BYTES = 16
"""Bytes of a cell in memory, at most; texts of a dictionary are shared."""
COMPRESSIONS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2", b"\xfd7zXZ\0": "xz"}
"""First bytes of compressed files."""
_ARCHIVES = {b"PK\x03\x04": "a zip archive or a spreadsheet", b"7z\xbc\xaf": "a 7z archive"}
_BINARY = {
    b"ARROW1": "an Arrow file", b"\x80\x04\x95": "a pickle", b"\x80\x05\x95": "a pickle",
    b"\x89PNG": "a picture", b"\x93NUMPY": "an array of numpy", b"\x89HDF": "an HDF5 file", b"%PDF": "a PDF",
}  # fmt: skip
_TAR_MAGIC, _TAR_PLACE = b"ustar", 257
_FORMAT_ERRORS = (UnicodeDecodeError, pl.exceptions.PolarsError, pl.exceptions.PanicException)


@dataclass(frozen=True)
class LogFile:
    """Table of one file."""

    frame: pl.DataFrame
    is_cut: bool = False
    """True if the file ends within a record."""
    num_skipped: int = 0
    """Broken lines that were left out."""


@dataclass(frozen=True)
class FileReading:
    """Knowledge about the columns of a file before it is read."""

    is_known: Callable[[str], bool]
    """True for names of columns that tell separator and header of a CSV file; of JSON only such are read."""
    is_number: Callable[[str], bool] = lambda name: False
    """True for names of columns that may be read as numbers."""
    skip_broken: bool = False
    """True if lines of JSON that cannot be read are left out."""


def read_log_file(path: Path, reading: FileReading) -> LogFile:
    """Read a file by its first bytes, not by its name, compressed or not. Raises UserError for a file that
    cannot be read."""
    kind = "CSV"
    try:
        source: Path | bytes = expanded_content(path) if compression_of(path) else path
        start = first_bytes(source)
        check_format(start, str(path))
        start = start.removeprefix(b"\xef\xbb\xbf").lstrip()
        if not start:
            raise UserError(f"{path}: is empty. Give a file with a header and rows.")
        if start.startswith(b"PAR1") and isinstance(source, Path):
            kind = "Parquet"
            _check_table_size(path)
            return LogFile(flat_columns(pl.read_parquet(path, glob=False)))
        if start.startswith((b"{", b"[")) or {*path.suffixes} & {".jsonl", ".ndjson"}:
            kind = "JSON lines"
            table = read_json_file(source, str(path), reading.is_known, reading.skip_broken)
            return LogFile(table.frame, table.is_cut, table.num_skipped)
        return LogFile(read_csv_file(source, str(path), reading.is_known, reading.is_number))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except _FORMAT_ERRORS as error:
        raise UserError(f"{path}: {_format_problem(kind, str(error))}") from error


def _format_problem(kind: str, reason: str) -> str:
    if "utf-8" in reason or "utf8" in reason:
        return "is not text in UTF-8. Save it so, as by iconv -f LATIN1 -t UTF-8."
    return f"is not a {kind} table ({reason.splitlines()[0]})"


def first_bytes(source: Path | bytes, num_bytes: int = 4096) -> bytes:
    """Return the beginning of a file or of its content."""
    if isinstance(source, bytes):
        return source[:num_bytes]
    with source.open("rb") as stream:
        return stream.read(num_bytes)


def compression_of(path: Path) -> str:
    """Return the compression of a file by its first bytes; empty if it has none."""
    start = first_bytes(path, 6)
    return next((name for magic, name in COMPRESSIONS.items() if start.startswith(magic)), "")


def expanded_content(path: Path) -> bytes:
    """Return the content of a compressed file. Raises UserError past the limit of expansion, OSError for
    damage."""
    compression = compression_of(path)
    if compression != "xz":
        with open_expanded(path, compression, str(path)) as stream:
            return stream.read()
    parts, num_bytes = [], 0
    try:
        with lzma.open(path) as stream:
            while part := stream.read(2**20):
                parts.append(part)
                num_bytes += len(part)
                check_expansion(str(path), num_bytes, path.stat().st_size)
    except (lzma.LZMAError, EOFError) as error:
        raise OSError(f"damaged xz stream: {error}") from error
    return b"".join(parts)


def check_format(start: bytes, place: str) -> None:
    """Raise UserError for the first bytes of an archive, of a picture and of other files that are no log."""
    archive = next((name for magic, name in _ARCHIVES.items() if start.startswith(magic)), "")
    if archive or start[_TAR_PLACE:].startswith(_TAR_MAGIC):
        raise UserError(
            f"{place}: is {archive or 'a tar archive'}. Unpack it, or export CSV, and give the files."
        )
    binary = next((name for magic, name in _BINARY.items() if start.startswith(magic)), "")
    if binary:
        raise UserError(f"{place}: is {binary}, not a log. Give CSV, JSON lines or Parquet.")
    is_utf16 = start.startswith((b"\xff\xfe", b"\xfe\xff"))
    has_zeros = b"\0\0" in start[:256] or start[:256].count(b"\0") > len(start[:256]) // 4
    if has_zeros and not (is_utf16 or start.startswith(b"PAR1")):
        raise UserError(
            f"{place}: is binary, or text in UTF-16 without its mark. Give CSV in UTF-8 or Parquet."
        )


def _check_table_size(path: Path) -> None:
    """Raise UserError if a Parquet file claims more rows than a file of its size can mean."""
    table = pl.scan_parquet(path, glob=False)
    num_cells = table.select(pl.len()).collect().item() * len(table.collect_schema())
    check_expansion(str(path), CELL_BYTES * num_cells, path.stat().st_size)
