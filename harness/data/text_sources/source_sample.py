"""Sample of a source: the beginnings of some of its files, from which its sizes are estimated at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.data.documents.compressed import COMPRESSIONS
from harness.data.documents.read_documents import (
    damage_errors,
    is_line_format,
    row_group_sizes,
    suffix_of,
)
from harness.data.text_sources.source import SAMPLE_CHARACTERS, Source

HEAD_BYTES = 2**18
"""Bytes of a file, as it lies there, that tell how far it expands and which share of a line is text."""
MAX_EXPANDED = 2**24
"""Bytes to which the head of a compressed file is expanded at most."""


@dataclass(frozen=True)
class FileSample:
    """Beginning of a file."""

    texts: tuple[str, ...]
    """First documents, the last one cut."""
    mean_bytes: float
    """Mean UTF-8 bytes of these documents as they are in the file."""
    text_share: float
    """Bytes of text for each byte of the file, as far as the beginning tells."""


@dataclass(frozen=True)
class SourceSample:
    """Texts of a source, and the sizes that they let expect."""

    texts: tuple[str, ...]
    documents: int
    """Estimated number of documents."""
    text_bytes: int
    """Estimated UTF-8 bytes of text."""


def sample_files(source: Source) -> tuple[Path, ...]:
    """Return files spread evenly over a source."""
    return source.files[:: source.sample_stride]


def sample_source(source: Source) -> SourceSample:
    """Read the beginnings of some files. Raises UserError for a bad document there."""
    files = sample_files(source)
    samples = [_sample_file(source, file) for file in files]
    sampled_bytes = sum(file.stat().st_size for file in files)
    text_bytes = sum(
        sample.text_share * file.stat().st_size for sample, file in zip(samples, files, strict=True)
    )
    scale = sum(file.stat().st_size for file in source.files) / max(1, sampled_bytes)
    documents = sum(
        sample.text_share * file.stat().st_size / sample.mean_bytes
        for sample, file in zip(samples, files, strict=True)
        if sample.texts
    )
    texts = tuple(text for sample in samples for text in sample.texts)
    return SourceSample(texts, max(len(texts), round(scale * documents)), round(scale * text_bytes))


def _sample_file(source: Source, file: Path) -> FileSample:
    texts, sizes, left = list[str](), list[int](), SAMPLE_CHARACTERS
    for document in source.documents_of(file):
        texts.append(document[:left])
        sizes.append(len(document.encode()))
        left -= len(document)
        if left <= 0:
            break
    share = _text_share(source, file, sizes)
    return FileSample(tuple(texts), max(1.0, sum(sizes) / max(1, len(sizes))), share)


def _text_share(source: Source, file: Path, sizes: Sequence[int]) -> float:
    """Return the bytes of text for each byte of a file whose first documents have `sizes` bytes."""
    size = max(1, file.stat().st_size)
    if suffix_of(file) == ".parquet":
        return sum(row_group_sizes(file, source.column)) / size
    with file.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
    compression = COMPRESSIONS.get(file.suffix)
    content = _expand(head, compression) if compression else head
    share = len(content) / max(1, len(head))
    if not is_line_format(file):
        return share
    lines = [line for line in content.splitlines()[:-1] if line.strip()][: len(sizes)]
    return share * sum(sizes[: len(lines)]) / sum(map(len, lines)) if lines else share


def _expand(head: bytes, compression: str) -> bytes:
    """Return what the first bytes of a compressed file stand for, as far as they go."""
    import pyarrow as pa

    parts = list[bytes]()
    try:
        with pa.CompressedInputStream(pa.BufferReader(head), compression) as stream:
            while sum(map(len, parts)) < MAX_EXPANDED and (part := stream.read(2**16)):
                parts.append(part)
    except damage_errors():  # the head ends within a block
        pass
    return b"".join(parts)
