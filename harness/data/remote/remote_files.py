"""Files of a source behind a URL: fetched, or stood in for by files of their size with their first bytes.

What only estimates a source needs the sizes of all its files and the begin of some. So a stand-in is a file
of the right size, all zeros but for the bytes that were fetched, which takes no room on the disk.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.documents.compressed import COMPRESSIONS
from harness.data.remote.fetch_listing import MAX_FETCHES, fetch_files
from harness.data.remote.store_copy import StoreCopy, store_copy
from harness.data.remote.store_errors import store_errors
from harness.data.remote.store_listing import StoreFile, open_store

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

HEAD_BYTES = 2**19
"""First bytes of a plain file in its stand-in."""
PACKED_HEAD_BYTES = 2**22
"""First bytes of a compressed file, or of a column of a Parquet file, in its stand-in."""
FOOTER_BYTES = 2**16
"""Last bytes of a Parquet file, in which its description most often fits."""


@dataclass(frozen=True)
class RemoteFiles:
    """Files of a source in a store."""

    where: str
    """Config key of the source and its value, for messages."""
    url: str
    files: tuple[StoreFile, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of the files whose size the store tells."""
        return sum(file.size or 0 for file in self.files)

    def is_fetched(self) -> bool:
        """Return whether there is a current copy of each file."""
        return all(map(store_copy(self.url).is_current, self.files))

    def fetch(self) -> tuple[Path, ...]:
        """Return the copies, fetching what is missing. Raises UserError."""
        copy = fetch_files(self.where, self.url, self.files)
        return tuple(map(copy.path, self.files))

    def fetch_one(self, index: int) -> Path:
        """Return the copy of one file, fetching it if it is missing. Raises UserError."""
        file = self.files[index]
        return fetch_files(self.where, self.url, [file]).path(file)

    def stand_ins(self, sample: Sequence[int], column: str) -> list[Path]:
        """Return a stand-in for each file; those of the indices in `sample` begin as their files do: Parquet
        with the begin of `column`. Raises UserError."""
        copy = store_copy(self.url)
        missing = [index for index in sample if not _stand_in(copy, self.files[index], True).exists()]
        if missing:
            with store_errors(self.where, self.url), ThreadPoolExecutor(MAX_FETCHES) as pool:
                store, _ = open_store(self.url)
                heads = pool.map(lambda index: _fetch_head(store, self.files[index], column), missing)
                for index, parts in zip(missing, heads, strict=True):
                    _write_stand_in(copy, self.files[index], True, parts)
        for index, file in enumerate(self.files):
            if index not in sample and not _stand_in(copy, file, False).exists():
                _write_stand_in(copy, file, False, [])
        return [_stand_in(copy, file, index in sample) for index, file in enumerate(self.files)]


Part = tuple[int, bytes]
"""Place in a file, and the bytes there."""


def _stand_in(copy: StoreCopy, file: StoreFile, has_head: bool) -> Path:
    version = copy.part(file).stem
    return copy.heads / f"{version}{'-head' * has_head}" / file.name


def _write_stand_in(copy: StoreCopy, file: StoreFile, has_head: bool, parts: Sequence[Part]) -> None:
    path = _stand_in(copy, file, has_head)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.{os.getpid()}").open("wb") as target:
        target.truncate(file.size or 0)
        for place, content in parts:
            target.seek(place)
            target.write(content)
    os.replace(target.name, path)


def _fetch_head(store: AbstractFileSystem, file: StoreFile, column: str) -> list[Part]:
    if file.size is None:
        return []
    with store.open(file.place, "rb", block_size=HEAD_BYTES, cache_type="none") as stream:
        if file.name.endswith(".parquet"):
            return _parquet_head(stream, file.size, column)
        is_packed = Path(file.name).suffix in COMPRESSIONS
        return [(0, _read(stream, 0, min(file.size, PACKED_HEAD_BYTES if is_packed else HEAD_BYTES)))]


def _parquet_head(stream: Any, size: int, column: str) -> list[Part]:
    """Return the first bytes, the first ones of a column, and the description at the end of the file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    footer_place = max(0, size - FOOTER_BYTES)
    footer = _read(stream, footer_place, size - footer_place)
    length = int.from_bytes(footer[-8:-4], "little") + 8
    if length > len(footer) and length <= size:
        footer_place = size - length
        footer = _read(stream, footer_place, length)
    parts = [(0, _read(stream, 0, min(4, size))), (footer_place, footer)]
    try:
        metadata = pq.read_metadata(pa.BufferReader(b"PAR1" + footer))
    except (OSError, pa.ArrowException):  # whoever reads it says so
        return parts
    for group in range(min(1, metadata.num_row_groups)):
        facts = metadata.row_group(group)
        chunks = [facts.column(index) for index in range(facts.num_columns)]
        for chunk in (chunk for chunk in chunks if chunk.path_in_schema == column):
            offsets = (chunk.dictionary_page_offset, chunk.data_page_offset)
            place = min(offset for offset in offsets if offset is not None)
            parts.append((place, _read(stream, place, min(PACKED_HEAD_BYTES, chunk.total_compressed_size))))
    return parts


def _read(stream: Any, place: int, length: int) -> bytes:
    stream.seek(place)
    return stream.read(length)
