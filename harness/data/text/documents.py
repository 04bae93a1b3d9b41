"""Documents of one file, of any supported format.

Text files separate documents by a line `<|endoftext|>`. A line of JSONL and a row of Parquet are a document
each. Compressed files expand up to a limit (core.files.expansion).
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harness.core.errors import UserError, did_you_mean
from harness.core.files.expansion import check_expansion, expansion_limit, open_expanded

END_OF_TEXT = "<|endoftext|>"
TEXT_SUFFIXES = (".txt", ".txt.zst", ".txt.gz", ".jsonl", ".jsonl.zst", ".jsonl.gz", ".parquet")
COMPRESSIONS = {".zst": "zstd", ".gz": "gzip"}
BYTE_ORDER_MARK = "\ufeff"


def suffix_of(file: Path, suffixes: tuple[str, ...] = TEXT_SUFFIXES) -> str | None:
    """Return the suffix that decides how a file is read; None for a file that is not read."""
    return next((suffix for suffix in suffixes if file.name.endswith(suffix)), None)


def read_documents(file: Path, column: str, key: str, path: str) -> Iterator[str]:
    """Return an iterator over the documents of a file; a missing value is an empty document.

    `key` is the config key of the source, and `path` its value, for messages. Raises UserError for content
    that is not text, UnicodeError for a file that is not UTF-8, OSError or ArrowException for a damaged one.
    """
    table = _Table(file, column, key, path)
    match (suffix_of(file) or "").split(".")[1:]:
        case ["parquet"]:
            return table.parquet_rows()
        case ["jsonl", *_]:
            return table.json_lines()
        case _:
            return _split_documents(_lines(file, table.where))


@dataclass(frozen=True)
class _Table:
    """A file with a column of text."""

    file: Path
    column: str
    key: str
    path: str

    @property
    def where(self) -> str:
        return f"{self.key}.path={self.path}: {self.file.name}"

    def json_lines(self) -> Iterator[str]:
        for number, line in enumerate(_lines(self.file, self.where), 1):
            text = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
            if not text.strip():
                continue
            place = f"line {number} of {self.file.name}"
            try:
                row = json.loads(text)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise UserError(f"{self.key}.path={self.path}: {place} is not a JSON object. Correct it.")
            yield self._text(row[self._column(row, place)], place)

    def parquet_rows(self) -> Iterator[str]:
        """Yield the texts of the rows. Equal texts are expanded once: their number has no limit in a file."""
        size, num_characters = self.file.stat().st_size, 0
        limit = expansion_limit(size)
        metadata = pq.read_metadata(self.file)
        column = self._column(metadata.schema.to_arrow_schema().names, self.file.name)
        check_expansion(self.where, _claimed_bytes(metadata), size)
        with pq.ParquetFile(self.file, metadata=metadata, read_dictionary=[column]) as table:
            for batch in table.iter_batches(columns=[column]):
                for value in _values(batch.column(0)):
                    text = self._text(value, self.file.name)
                    num_characters += len(text)
                    if num_characters > limit:
                        check_expansion(self.where, num_characters, size)
                    yield text

    def _column(self, present: Any, place: str) -> str:
        if self.column not in present:
            raise UserError(
                f"{self.key}.column={self.column} is not in {place} of {self.path}: "
                f"{did_you_mean(self.column, present)}"
            )
        return self.column

    def _text(self, value: Any, place: str) -> str:
        """Return the text of a value."""
        if not isinstance(value, str | None):
            raise UserError(
                f"{self.key}.column={self.column} holds {type(value).__name__} in {place} of {self.path}: "
                "name a column of text"
            )
        try:
            (value or "").encode()
        except UnicodeEncodeError as error:  # JSON can hold it, UTF-8 cannot
            half = f"\\u{ord(error.object[error.start]):04x}"
            raise UserError(
                f"{self.key}.path={self.path}: {place} holds {half}, half of a surrogate pair and no "
                "character. Remove it, or write the whole pair."
            ) from None
        return value or ""


def _claimed_bytes(metadata: pq.FileMetaData) -> int:
    return sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))


def _values(column: pa.Array) -> Iterator[Any]:
    """Yield the values of a column; equal ones of a dictionary share their memory."""
    if not isinstance(column, pa.DictionaryArray):
        yield from column.to_pylist()
        return
    texts = column.dictionary.to_pylist()
    yield from (None if index is None else texts[index] for index in column.indices.to_pylist())


def _lines(file: Path, where: str) -> Iterator[str]:
    """Yield lines with their ends unchanged; universal newlines would change the text."""
    compression = COMPRESSIONS.get(file.suffix)
    stream = open_expanded(file, compression, where) if compression else file.open("rb")
    with io.TextIOWrapper(stream, encoding="utf-8", newline="\n") as lines:
        yield from lines


def _split_documents(lines: Iterator[str]) -> Iterator[str]:
    part: list[str] = []
    for line in lines:
        if line.rstrip("\r\n") == END_OF_TEXT:
            yield "".join(part).removesuffix("\n")
            part = []
        else:
            part.append(line)
    yield "".join(part).removesuffix("\n")
