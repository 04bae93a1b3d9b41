"""The text of a project: the user's own file, with the column of its texts, and what fits its size."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from harness.core.errors import UserError
from harness.core.paths import is_remote, local_path

TEXT_COLUMN = "text"
"""Column of the texts, where a source names no other."""
TABLES = (".jsonl", ".json", ".parquet")
COMPRESSED = (".gz", ".zst", ".bz2")
NUM_ROWS = 100
"""Number of rows by which the column of the texts is known."""
HOLDOUT, SMALL_HOLDOUT = 0.05, 0.1
"""Share of the text to evaluate on, and that of a small text."""
MAX_EVALUATION_TOKENS, SEQUENCE = 16_384, 128
BYTES_PER_TOKEN = 6.0
"""Bytes of a file for each token to evaluate on: more than a token has, since the held-out documents are
drawn and may be short ones."""
EXPANSION = 3
"""Bytes of a text for each byte of its compressed file."""


@dataclass(frozen=True)
class UserText:
    """Text of a project, and what fits its size."""

    path: str
    column: str
    holdout: float
    evaluation_tokens: int


PACKED_TEXT = UserText("pack:prose", TEXT_COLUMN, HOLDOUT, MAX_EVALUATION_TOKENS)
"""Text that ships with the harness, for a project without a text of its own."""


def read_text(text: str, column: str | None) -> UserText:
    """Return a user's text: a file, a folder or a URL. `column`: that of the texts, None to look for it.
    Raises UserError for what is no text, or too little."""
    path = _check_path(text)
    column = column or _find_column(path)
    size = _num_bytes(path)
    if size is None:
        return UserText(path, column, HOLDOUT, MAX_EVALUATION_TOKENS)
    holdout, tokens = _evaluation_of(size)
    if tokens < SEQUENCE:
        min_kilobytes = math.ceil(SEQUENCE * BYTES_PER_TOKEN / SMALL_HOLDOUT / 1000)
        raise UserError(
            f"--text {text}: {size:,} bytes are too little to train and to evaluate on. Give at least "
            f"{min_kilobytes} kB of text."
        )
    return UserText(path, column, holdout, tokens)


def _evaluation_of(size: int) -> tuple[float, int]:
    """Return the share to hold out of a text of so many bytes, and how many tokens of that to evaluate on."""
    holdout = HOLDOUT if size * HOLDOUT >= MAX_EVALUATION_TOKENS * BYTES_PER_TOKEN else SMALL_HOLDOUT
    tokens = int(size * holdout / BYTES_PER_TOKEN)
    return holdout, min(MAX_EVALUATION_TOKENS, tokens - tokens % SEQUENCE)


def _num_bytes(path: str) -> int | None:
    """Return about how many bytes of text there are; None for a URL."""
    if is_remote(path):
        return None
    files = (
        [Path(path)] if os.path.isfile(path) else [file for file in Path(path).rglob("*") if file.is_file()]
    )
    return sum(
        file.stat().st_size * (EXPANSION if file.suffix in (*COMPRESSED, ".parquet") else 1) for file in files
    )


def _check_path(text: str) -> str:
    """Return the absolute path of a user's text; a URL as it is. Raises UserError for what is no text."""
    if is_remote(text):
        return text
    path = Path(local_path(text, ""))
    if not path.exists():
        raise UserError(f"--text {text}: there is no such file or folder. Correct the path.")
    if path.is_file() and path.suffix not in (".txt", *TABLES, *COMPRESSED):
        raise UserError(
            f"--text {text}: give .txt, .jsonl, .json or .parquet, or one of these in .gz, .zst or .bz2. "
            'Write each document as a line of JSON, {"text": ...}, into a .jsonl file.'
        )
    return str(path.resolve())


def _find_column(path: str) -> str:
    """Return the column of the texts of a JSONL or Parquet file: `text`, otherwise that of the longest texts;
    `text` for any other file. Raises UserError if no column holds texts."""
    file = Path(path)
    if is_remote(path) or not file.is_file() or file.suffix not in TABLES:
        return TEXT_COLUMN
    rows = [*islice(_parquet_rows(file) if file.suffix == ".parquet" else _json_rows(file), NUM_ROWS)]
    lengths: dict[str, int] = {}
    for row in rows:
        for name, value in row.items():
            if isinstance(value, str):
                lengths[name] = lengths.get(name, 0) + len(value)
    if TEXT_COLUMN in lengths:
        return TEXT_COLUMN
    if not lengths:
        columns = ", ".join(sorted({name for row in rows for name in row})) or "none"
        raise UserError(f"--text {path}: no column holds texts (columns: {columns}). Give one that does.")
    return max(lengths, key=lambda name: lengths[name])


def _json_rows(file: Path) -> Iterable[Mapping[str, Any]]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig"))
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise UserError(
                    f"--text {file}: line {number} is not a JSON object. Write each document as a line, "
                    '{"text": ...}.'
                )
            yield row


def _parquet_rows(file: Path) -> Iterable[Mapping[str, Any]]:
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import ParquetFile

    try:
        for batch in ParquetFile(file).iter_batches(NUM_ROWS):
            yield from batch.to_pylist()
    except ArrowInvalid as error:
        raise UserError(f"--text {file}: this is not a Parquet file ({error}). Write it again.") from None
