"""Sources as streams of documents, from any supported file format.

Text files separate documents by a line `<|endoftext|>`. A line of JSONL and a row of Parquet are a document
each. A folder is read in the order of its files' paths.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harness.config.schema.run import SourceConfig
from harness.core.errors import UserError, did_you_mean

END_OF_TEXT = "<|endoftext|>"
PACK = Path(__file__).parents[1] / "pack"
TEXT_SUFFIXES = (".txt", ".txt.zst", ".jsonl", ".jsonl.zst", ".parquet")
IMAGE_SUFFIXES = (".npz",)


@dataclass(frozen=True)
class Source:
    """A named source and its files."""

    name: str
    path: str
    column: str
    files: tuple[Path, ...]

    @property
    def key(self) -> str:
        """Config key of the source, for messages."""
        return f"data.sources.{self.name}"

    def documents(self) -> Iterator[str]:
        """Yield the documents that hold more than white space, in a fixed order. Raises UserError."""
        for file in self.files:
            where = f"{self.key}.path={self.path}: {file.name}"
            try:
                yield from (text for text in self._read(file) if text.strip())
            except UnicodeError:
                raise UserError(f"{where} is not UTF-8: convert it") from None
            except (OSError, pa.ArrowException):
                problem = "it is damaged, protected, or not of the kind in its name"
                raise UserError(f"{where} cannot be read: {problem}. Replace it.") from None

    def _read(self, file: Path) -> Iterator[str]:
        match suffix_of(file):
            case ".parquet":
                return self._parquet(file)
            case ".jsonl" | ".jsonl.zst":
                return self._jsonl(file)
            case _:
                return _split_documents(file)

    def _jsonl(self, file: Path) -> Iterator[str]:
        for number, line in enumerate(_lines(file), 1):
            if not line.strip():
                continue
            where = f"line {number} of {file.name}"
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                row = None
            if not isinstance(row, dict):
                raise UserError(f"{self.key}.path={self.path}: {where} is not a JSON object. Correct it.")
            yield self._text(row[self._column(row, where)], where)

    def _parquet(self, file: Path) -> Iterator[str]:
        with pq.ParquetFile(file) as table:
            column = self._column(table.schema_arrow.names, file.name)
            for batch in table.iter_batches(columns=[column]):
                yield from (self._text(value, file.name) for value in batch.column(0).to_pylist())

    def _column(self, present: Any, where: str) -> str:
        if self.column not in present:
            raise UserError(
                f"{self.key}.column={self.column} is not in {where} of {self.path}: "
                f"{did_you_mean(self.column, present)}"
            )
        return self.column

    def _text(self, value: Any, where: str) -> str:
        """Return the text of a value; a missing value is an empty document."""
        if not isinstance(value, str | None):
            raise UserError(
                f"{self.key}.column={self.column} holds {type(value).__name__} in {where} of {self.path}: "
                "name a column of text"
            )
        (value or "").encode()  # raises for half a surrogate pair, which JSON can hold
        return value or ""


def find_source(name: str, config: SourceConfig, suffixes: tuple[str, ...] = TEXT_SUFFIXES) -> Source:
    """Find the files of a source. Raises UserError if there is nothing to read."""
    key = f"data.sources.{name}.path={config.path}"
    is_packed = config.path.startswith("pack:")
    path = _pack_file(key, config.path, suffixes) if is_packed else Path(config.path).expanduser()
    if not path.exists():
        siblings = path.parent.iterdir() if path.parent.is_dir() else ()
        names = (entry.name for entry in siblings)
        raise UserError(f"{key} does not exist: {did_you_mean(path.name, names)}")
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    files = [file for file in files if file.is_file() and suffix_of(file, suffixes)]
    if not files:
        raise UserError(f"{key} holds no readable file. Give {', '.join(suffixes)}.")
    if not any(file.stat().st_size for file in files):
        raise UserError(f"{key} is empty: give a file with {_content_word(suffixes)} in it")
    return Source(name, config.path, config.column, tuple(files))


def is_heldout(document: str, share: float) -> bool:
    """Return whether a document is held out, by its text alone: copies in other sources agree."""
    draw = int.from_bytes(hashlib.sha256(document.encode()).digest()[:8], "big")
    return draw < share * 2.0**64


def suffix_of(file: Path, suffixes: tuple[str, ...] = TEXT_SUFFIXES) -> str | None:
    """Return the suffix that decides how a file is read; None for a file that is not read."""
    return next((suffix for suffix in suffixes if file.name.endswith(suffix)), None)


def _pack_file(key: str, path: str, suffixes: tuple[str, ...]) -> Path:
    suffix = ".npz" if suffixes == IMAGE_SUFFIXES else ".txt.zst"
    names = [file.name.removesuffix(suffix) for file in PACK.glob(f"*{suffix}")]
    name = path.removeprefix("pack:")
    if name not in names:
        content = _content_word(suffixes)
        raise UserError(f"{key}: the harness ships no such {content}; {did_you_mean(name, names)}")
    return PACK / f"{name}{suffix}"


def _content_word(suffixes: tuple[str, ...]) -> str:
    return "images" if suffixes == IMAGE_SUFFIXES else "text"


def _lines(file: Path) -> Iterator[str]:
    """Yield lines with their ends unchanged; universal newlines would change the text."""
    raw = pa.OSFile(str(file))
    stream = pa.CompressedInputStream(raw, "zstd") if file.suffix == ".zst" else raw
    with io.TextIOWrapper(stream, encoding="utf-8", newline="\n") as lines:  # pyright: ignore[reportArgumentType]
        yield from lines


def _split_documents(file: Path) -> Iterator[str]:
    part: list[str] = []
    for line in _lines(file):
        if line.rstrip("\r\n") == END_OF_TEXT:
            yield "".join(part).removesuffix("\n")
            part = []
        else:
            part.append(line)
    yield "".join(part).removesuffix("\n")
