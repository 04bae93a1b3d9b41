"""Tokens of a piece: its documents, divided, encoded some at a time, and written as a shard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from harness.data.codecs.codec import Codec
from harness.data.shards.encoding import Encoding
from harness.data.shards.shard_file import ShardRecord, ShardWriter
from harness.data.text_sources.leaf_hash import leaf_hash
from harness.data.text_sources.source import Source
from harness.data.text_sources.split import divide
from harness.data.tokenizing.pieces import FileRange, Leaves, Piece

ENCODE_CHARACTERS = 1_000_000
"""Characters encoded at a time: enough for the tokenizer's threads, with little memory."""
LONG_CHARACTERS = 4 * ENCODE_CHARACTERS
"""Characters from which on a text is encoded in parts that end with a line. A tokenizer needs some 40 bytes
of memory for each byte that it encodes at once."""


def encode_piece(
    source: Source, piece: Piece, encoding: Encoding, folder: Path, alive: Callable[[int], None]
) -> ShardRecord:
    """Write the shard of a piece. `alive` is called with the characters that were encoded since the last
    call; it may raise to give up. Raises UserError for bad text."""
    leaves = _hash_leaves(source, piece.leaves)
    return encode_documents(_documents(source, piece.ranges), leaves, encoding, folder / piece.name, alive)


def encode_documents(
    documents: Iterator[str],
    leaves: list[tuple[int, int, str]],
    encoding: Encoding,
    shard: Path,
    alive: Callable[[int], None],
) -> ShardRecord:
    """Write the shard of documents; `shard`: folder and name of its files."""
    codec = encoding.codec
    assert codec.end_token is not None  # whatever encodes a text has one
    writer = ShardWriter(shard.parent, shard.name, codec.dtype, codec.end_token)
    try:
        for batch in _text_batches(documents, encoding):
            short = iter(codec.encode([text for _, text in batch if len(text) <= LONG_CHARACTERS]))
            for is_heldout, text in batch:
                tokens = next(short) if len(text) <= LONG_CHARACTERS else encode_long(codec, text)
                writer.add(is_heldout, tokens, len(text.encode()))
            alive(sum(len(text) for _, text in batch))
        return writer.finish(leaves)
    finally:
        writer.close()


def encode_long(codec: Codec, text: str) -> np.ndarray:
    """Return the tokens of a text that is too long to be encoded at once. A part ends with the first line
    that ends after ENCODE_CHARACTERS, or there if none does within as many again."""
    parts, start = [], 0
    while start < len(text):
        end = start + ENCODE_CHARACTERS
        line_end = text.find("\n", end, end + ENCODE_CHARACTERS)
        stop = line_end + 1 if line_end >= 0 else end
        parts += codec.encode([text[start:stop]])
        start = stop
    return np.concatenate(parts)


def _hash_leaves(source: Source, leaves: tuple[Leaves, ...]) -> list[tuple[int, int, str]]:
    """Hash leaves just before their text is read, so that a disk gives them once."""
    numbers = [(item.file, leaf) for item in leaves for leaf in range(item.first, item.last)]
    return [(file, leaf, leaf_hash(source.files[file], leaf)) for file, leaf in numbers]


def _documents(source: Source, ranges: tuple[FileRange, ...]) -> Iterator[str]:
    """Yield the documents of a piece that hold more than white space."""
    for part in ranges:
        yield from source.documents_of(source.files[part.file], part.start, part.stop)


def _text_batches(documents: Iterator[str], encoding: Encoding) -> Iterator[list[tuple[bool, str]]]:
    """Yield (whether it is held out, text) of all documents, some at a time."""
    portion: list[tuple[bool, str]] = []
    characters = 0
    for document in documents:
        portion += divide(document, encoding.holdout, encoding.split)
        characters += len(document)
        if characters >= ENCODE_CHARACTERS:
            yield portion
            portion, characters = [], 0
    yield portion
