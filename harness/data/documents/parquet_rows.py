"""Documents of a Parquet file: a row each, of which one value is the text."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from harness.core.files.expansion import check_expansion, expansion_limit
from harness.data.documents.text_column import TextColumn

BATCH_BYTES = 2**20
"""Bytes of text, about, that are in memory at a time."""
MAX_BATCH_BYTES = 2**26
MAX_BATCH_ROWS = 2**16
BUFFER_BYTES = 2**20


def row_group_sizes(file: Path, column: str = "") -> list[int]:
    """Return the bytes of each row group, expanded: of a column if it is named and there, else of all. Raises
    OSError or ArrowException for a damaged file."""
    metadata = pq.read_metadata(file)
    return [_column_bytes(metadata.row_group(group), column) for group in range(metadata.num_row_groups)]


def parquet_texts(column: TextColumn, groups: Sequence[int] | None = None) -> Iterator[str]:
    """Yield the texts of the rows of some row groups; None: of all. Raises UserError, OSError or
    ArrowException."""
    size, num_characters = column.file.stat().st_size, 0
    limit = expansion_limit(size)
    metadata = pq.read_metadata(column.file)
    names = _field_path(metadata.schema.to_arrow_schema(), column)
    all_groups = range(metadata.num_row_groups)
    check_expansion(
        column.where, sum(metadata.row_group(group).total_byte_size for group in all_groups), size
    )
    for value in _values(column, names, metadata, all_groups if groups is None else groups):
        text = column.text(value, column.file_place)
        num_characters += len(text)
        if num_characters > limit:
            check_expansion(column.where, num_characters, size)
        yield text


def _values(
    column: TextColumn, names: Sequence[str], metadata: pq.FileMetaData, groups: Sequence[int]
) -> Iterator[Any]:
    with _open(column, metadata) as table:
        for group in groups:
            rows = _batch_rows(column, names, metadata, group)
            for batch in table.iter_batches(rows, row_groups=[group], columns=[column.name]):
                yield from _field(batch, names).to_pylist()


def _open(column: TextColumn, metadata: pq.FileMetaData, **options: Any) -> pq.ParquetFile:
    """Open a file so that it is read page by page."""
    read_ahead = {"pre_buffer": False, "buffer_size": BUFFER_BYTES}
    return pq.ParquetFile(column.file, metadata=metadata, **read_ahead, **options)


def _batch_rows(column: TextColumn, names: Sequence[str], metadata: pq.FileMetaData, group: int) -> int:
    """Return the rows that are read at a time: few of long texts, also where a file holds one text once, and
    a reference to it a million times."""
    facts = metadata.row_group(group)
    mean_bytes = _column_bytes(facts, column.name) / max(1, facts.num_rows)
    with _open(column, metadata, read_dictionary=[column.name]) as table:
        batches = table.iter_batches(1, row_groups=[group], columns=[column.name])
        arrays = [_field(batch, names) for batch in itertools.islice(batches, 1)]
    dictionaries = [array.dictionary for array in arrays if isinstance(array, pa.DictionaryArray)]
    longest = max((len(text or "") for texts in dictionaries for text in texts.to_pylist()), default=0)
    rows = min(BATCH_BYTES / max(1.0, mean_bytes), MAX_BATCH_BYTES / max(1, longest))
    return int(min(MAX_BATCH_ROWS, max(1.0, rows)))


def _column_bytes(group: pq.RowGroupMetaData, column: str) -> int:
    chunks = [group.column(index) for index in range(group.num_columns)]
    sizes = [chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema == column]
    return sizes[0] if sizes else group.total_byte_size


def _field(batch: pa.RecordBatch, names: Sequence[str]) -> pa.Array:
    array = batch.column(batch.schema.get_field_index(names[0]))
    for name in names[1:]:
        array = pc.call_function("struct_field", [array], pc.StructFieldOptions([name]))
    return array


def _field_path(schema: pa.Schema, column: TextColumn) -> list[str]:
    """Return the names that lead to the column: itself, or fields within fields. Raises UserError unless it
    holds texts."""
    if column.name in schema.names:
        _check_type(schema, schema.field(column.name).type, column)
        return [column.name]
    names = column.name.split(".")
    if names[0] not in schema.names:
        raise column.missing(_text_columns(schema) or schema.names, column.file_place)
    field_type = schema.field(names[0]).type
    for name in names[1:]:
        if pa.types.is_list(field_type) or pa.types.is_large_list(field_type):
            raise column.in_list(column.file_place)
        if not pa.types.is_struct(field_type) or field_type.get_field_index(name) < 0:
            raise column.missing(_text_columns(schema), column.file_place)
        field_type = field_type.field(name).type
    _check_type(schema, field_type, column)
    return names


def _check_type(schema: pa.Schema, kind: pa.DataType, column: TextColumn) -> None:
    """Raise UserError unless values of this type are texts."""
    if _is_text(kind):
        return
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        if pa.types.is_integer(kind.value_type):
            raise column.tokens_in_list(column.file_place)
        raise column.in_list(column.file_place)
    words = "nothing but nulls" if pa.types.is_null(kind) else str(kind).partition("<")[0]
    texts = _text_columns(schema)
    way_out = f"name a column of text ({', '.join(texts[:12])})" if texts else "no column of the file is text"
    raise column.no_text(words, column.file_place, way_out)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _text_columns(fields: pa.Schema | pa.StructType, prefix: str = "") -> list[str]:
    """Return the columns of text, with those inside others."""
    columns: list[str] = []
    for field in fields:
        if _is_text(field.type):
            columns.append(prefix + field.name)
        elif pa.types.is_struct(field.type):
            columns += _text_columns(field.type, f"{prefix}{field.name}.")
    return columns
