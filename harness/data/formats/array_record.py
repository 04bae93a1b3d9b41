"""ArrayRecord, the files that Grain reads: each record holds the tokens of a document."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int, Int64

from harness.config.schema.data import SourceConfig
from harness.core.files import protobuf_wire
from harness.core.progress.report import report
from harness.data.formats.token_format import (
    FileTokens,
    TokenArray,
    TokenFileError,
    TokenReader,
    file_version,
    register_token_format,
    row_starts,
)
from harness.data.tokens.cached_arrays import cached_arrays

READ_RECORDS = 1024
"""Records that are read at a time."""
SAMPLE_RECORDS = 8
"""Records of a sample at each of three places."""
DEFAULT_FEATURE = "input_ids"
FEATURES, MAP_KEY, MAP_VALUE, INT64_LIST, VALUES = 1, 1, 2, 3, 1
"""Fields of tf.train.Example: features, each with its name and value, of which one kind is a list of integers
(tensorflow/core/example/feature.proto)."""


@dataclass(frozen=True)
class RecordOptions:
    """Meaning of the bytes of a record."""

    dtype: Literal["uint16", "uint32", "int32", "int64"] | None = None
    """Integer type of records of plain tokens, little-endian; null: they are `tf.train.Example`."""


@register_token_format("array_record", RecordOptions, suffixes=(".array_record", ".arrayrecord"))
class ArrayRecords(TokenReader):
    """Files of ArrayRecord, read by the package `array_record`. Where records end is measured when a file is
    first opened; each record is a document, unless several are all of one length."""

    options: RecordOptions

    def open(self, file: Path, column: str) -> FileTokens:
        """Return the tokens of all records."""
        part = _Records(file, column, self.options.dtype, self._ends(file, column))
        return FileTokens((part,), part.find_starts)

    def open_sample(self, file: Path, column: str) -> FileTokens:
        """Return the tokens of some records."""
        reader = _reader(file, file_version(file)[-1])
        count = reader.num_records()
        places = {*range(SAMPLE_RECORDS), *range(count // 2, count // 2 + SAMPLE_RECORDS)}
        places |= {*range(count - SAMPLE_RECORDS, count)}
        records = reader.read(sorted(place for place in places if 0 <= place < count)) if count else []
        tokens = [_decode(record, column, self.options.dtype) for record in records]
        return FileTokens(tuple(map(TokenArray, tokens)), is_sample=True)

    def _ends(self, file: Path, column: str) -> Int64[np.ndarray, " R"]:
        inputs = ["array_record", str(file.resolve()), file_version(file), column, self.options.dtype]
        return cached_arrays(inputs, lambda: {"end_R": _measure(file, column, self.options.dtype)})["end_R"]


@dataclass(frozen=True)
class _Records:
    """Tokens of all records of a file, one after another."""

    file: Path
    column: str
    dtype: str | None
    end_R: Int64[np.ndarray, " R"]

    def __len__(self) -> int:
        return int(self.end_R[-1]) if len(self.end_R) else 0

    def read(self, start: int, count: int) -> Int[np.ndarray, " count"]:
        first, last = np.searchsorted(self.end_R, (start, start + count - 1), side="right")
        before = int(self.end_R[first - 1]) if first else 0
        records = _reader(self.file, self._inode).read(int(first), int(last) + 1)
        tokens = [_decode(record, self.column, self.dtype) for record in records]
        return np.concatenate(tokens)[start - before : start - before + count]

    def advise(self, start: int, count: int) -> None:
        """Do nothing: the library reads."""

    def find_starts(self) -> Int64[np.ndarray, " R"] | None:
        return row_starts(np.diff(self.end_R, prepend=0))

    @functools.cached_property
    def _inode(self) -> int:
        return file_version(self.file)[-1]


@functools.lru_cache(maxsize=64)
def _reader(file: Path, _inode: int) -> Any:
    """Return an open reader, for random access."""
    try:
        from array_record.python.array_record_module import ArrayRecordReader  # pyright: ignore
    except ImportError:
        raise TokenFileError("is read by the package array_record: pip install array_record.") from None
    try:
        return ArrayRecordReader(str(file), "readahead_buffer_size:0,max_parallelism:0")
    except Exception:  # the library documents no narrower class
        raise TokenFileError("is no ArrayRecord file, or is cut short. Copy it again.") from None


def _measure(file: Path, column: str, dtype: str | None) -> Int64[np.ndarray, " R"]:
    reader = _reader(file, file_version(file)[-1])
    count = reader.num_records()
    length_R = np.zeros(count, np.int64)
    for first in range(0, count, READ_RECORDS):
        report(f"measuring the records of {file.name}", first, count)
        last = min(count, first + READ_RECORDS)
        length_R[first:last] = [len(_decode(r, column, dtype)) for r in reader.read(first, last)]
    return np.cumsum(length_R)


def _decode(record: bytes, column: str, dtype: str | None) -> Int[np.ndarray, " N"]:
    """Return the tokens of a record."""
    if dtype is None:
        return _example_tokens(record, column)
    if len(record) % np.dtype(dtype).itemsize:
        raise TokenFileError(
            f"holds a record of {len(record)} bytes, which are no tokens of {dtype}: correct"
            " data.sources.NAME.options.dtype, or leave it out for tf.train.Example."
        )
    return np.frombuffer(record, np.dtype(dtype).newbyteorder("<"))


def _example_tokens(record: bytes, column: str) -> Int64[np.ndarray, " N"]:
    """Return the integers of a feature of a tf.train.Example."""
    names = (column, *((DEFAULT_FEATURE,) if column == SourceConfig.column else ()))
    try:
        entries = [*protobuf_wire.messages(b"".join(protobuf_wire.messages(record, FEATURES)), 1)]
        features = {protobuf_wire.text(entry, MAP_KEY): entry for entry in entries}
        present = [features[name] for name in names if name in features]
        lists = [
            integers
            for feature in present
            for value in protobuf_wire.messages(feature, MAP_VALUE)
            for integers in protobuf_wire.messages(value, INT64_LIST)
        ]
        if lists:
            return _integers(lists[0])
    except protobuf_wire.WireError:
        features = {}
    listing = f" (its features: {', '.join(sorted(features))})" if features else ""
    raise TokenFileError(
        f"holds records without a feature {names[-1]} of integers{listing}: name the feature with"
        " data.sources.NAME.column=..., or the dtype of plain tokens with data.sources.NAME.options.dtype."
    )


def _integers(message: bytes) -> Int64[np.ndarray, " N"]:
    """Return the values of an Int64List, packed as protobuf writes them, or one by one."""
    single = [value for number, value in protobuf_wire.fields(message) if number == VALUES]
    lists = [_varints(value) for value in single if isinstance(value, bytes)]
    return np.concatenate(lists) if lists else np.array(single, np.uint64).astype(np.int64)


def _varints(content: bytes) -> Int64[np.ndarray, " N"]:
    """Return packed varints: seven bits a byte, the lowest first; the last byte of each is below 128."""
    byte_N = np.frombuffer(content, np.uint8)
    last_V = np.flatnonzero(byte_N < 128)
    first_V = np.append(0, last_V[:-1] + 1)
    place_N = np.arange(len(byte_N)) - np.repeat(first_V, last_V - first_V + 1)
    bits_N = (byte_N & 127).astype(np.uint64) << (7 * place_N).astype(np.uint64)
    return np.add.reduceat(bits_N, first_V).astype(np.int64) if len(first_V) else np.empty(0, np.int64)
