"""Tables of Arrow with a column of tokens, such as `datasets.save_to_disk` writes: mapped, never copied."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int64

from harness.config.schema.data import SourceConfig
from harness.core.errors import did_you_mean
from harness.data.formats.token_format import (
    FileTokens,
    TokenFileError,
    TokenReader,
    register_token_format,
    row_starts,
)
from harness.data.tokens.token_sequence import TokenFile

if TYPE_CHECKING:
    import pyarrow as pa

DEFAULT_COLUMN = "input_ids"
"""Column of tokens of a source that names none."""
FILE_MAGIC, STREAM_MAGIC = b"ARROW1", b"\xff\xff\xff\xff"
STREAM_END = STREAM_MAGIC + bytes(4)
STATE, SPLITS = "state.json", "dataset_dict.json"
"""Files in the folder of a data set, and of several."""


@register_token_format("arrow", suffixes=(".arrow",))
class ArrowTables(TokenReader):
    """Files of Arrow with lists of tokens in a column: each row is a document, unless several rows are all
    of one length."""

    @classmethod
    def recognises(cls, file: Path, head: bytes) -> bool:
        """Return whether a file begins as a file or a stream of Arrow does."""
        return head.startswith((FILE_MAGIC, STREAM_MAGIC))

    @classmethod
    def files_of(cls, path: Path) -> list[Path]:
        """Return the files of a data set that `datasets` saved, in the order of its rows."""
        if (path / SPLITS).is_file():
            splits = json.loads((path / SPLITS).read_text())["splits"]
            raise TokenFileError(f"holds several data sets: name the folder of one, {' or '.join(splits)}.")
        if not (path / STATE).is_file():
            return []
        names = [entry["filename"] for entry in json.loads((path / STATE).read_text())["_data_files"]]
        if missing := [name for name in names if not (path / name).is_file()]:
            raise TokenFileError(f"lacks {missing[0]}, which its {STATE} names. Copy it again.")
        return [path / name for name in names]

    def open(self, file: Path, column: str) -> FileTokens:
        """Return the values of a column of lists, or of integers."""
        import pyarrow as pa

        try:
            with pa.memory_map(str(file)) as memory:
                base = memory.read_buffer().address
                arrays = [*_columns(memory, column)]
                parts = [_part(array, file, base) for array in arrays]
                kind = arrays[0].type if arrays else pa.null()
        except pa.ArrowException:
            raise TokenFileError(
                "cannot be read as Arrow: it is damaged or cut short. Copy it again."
            ) from None
        is_list = hasattr(kind, "value_type")
        return FileTokens(
            tuple(part for part in parts if part.count),
            (lambda: _find_starts(file, column)) if is_list else (lambda: None),
        )


def _columns(memory: pa.MemoryMappedFile, column: str) -> Iterator[Any]:
    """Yield the column of each record batch, in the memory of the map."""
    import pyarrow as pa

    memory.seek(0)
    if memory.read(len(FILE_MAGIC)) == FILE_MAGIC:
        memory.seek(0)
        with pa.ipc.open_file(memory) as table:
            name = _column_name(table.schema, column)
            for index in range(table.num_record_batches):
                yield table.get_batch(index).column(name)
        return
    memory.seek(max(0, memory.size() - len(STREAM_END)))
    if memory.read(len(STREAM_END)) != STREAM_END:
        raise TokenFileError("has no end: it is cut short. Copy it again.")
    memory.seek(0)
    with pa.ipc.open_stream(memory) as table:
        name = _column_name(table.schema, column)
        for batch in table:
            yield batch.column(name)


def _column_name(schema: pa.Schema, column: str) -> str:
    """Return the column of tokens: the named one, or `input_ids` if the config leaves the default."""
    import pyarrow as pa

    names = [column, *([DEFAULT_COLUMN] if column == SourceConfig.column else [])]
    present = [name for name in names if name in schema.names]
    if not present:
        raise TokenFileError(
            f"has no column {names[-1]} ({did_you_mean(names[-1], schema.names)}): name that of the tokens"
            " with data.sources.NAME.column=..."
        )
    for name in present:
        kind = schema.field(name).type
        values = kind.value_type if _is_list(kind) else kind
        if pa.types.is_integer(values):
            return name
    raise TokenFileError(
        f"holds {schema.field(present[-1]).type} in its column {present[-1]}, which are no tokens: name a"
        " column of lists of integers with data.sources.NAME.column=..., or tokenise it."
    )


def _is_list(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return any(
        check(kind) for check in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    )


def _part(array: Any, file: Path, base: int) -> TokenFile:
    """Return the values of an array by their place in the file that is mapped at the address `base`."""
    values = array.flatten() if _is_list(array.type) else array
    dtype = np.dtype(values.type.to_pandas_dtype()).newbyteorder("<")
    if values.null_count:
        raise TokenFileError("holds rows with missing tokens. Write it without them.")
    if not len(values):
        return TokenFile(file, 0, dtype, 0)
    offset = values.buffers()[1].address + values.offset * dtype.itemsize - base
    if not 0 <= offset <= file.stat().st_size - len(values) * dtype.itemsize:
        raise TokenFileError(
            "is compressed inside, so its tokens cannot be read in place. Write it without compression, as"
            " datasets.save_to_disk does."
        )
    return TokenFile(file, offset, dtype, len(values))


def _find_starts(file: Path, column: str) -> Int64[np.ndarray, " D"] | None:
    import pyarrow as pa

    with pa.memory_map(str(file)) as memory:
        lengths = [_row_lengths(array) for array in _columns(memory, column)]
    return row_starts(np.concatenate(lengths)) if lengths else None


def _row_lengths(array: Any) -> Int64[np.ndarray, " R"]:
    """Return the number of tokens of each row; a missing row has none."""
    return np.asarray(array.value_lengths().fill_null(0), np.int64)
