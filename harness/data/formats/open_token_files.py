"""Interface to files of tokens: sizes, checks, and the tokens of both splits, read where they lie."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from harness.core.hashing import hash_json
from harness.data.codecs.codec import Codec
from harness.data.formats.sample_checks import check_largest, check_token_sample
from harness.data.formats.source_index import SourceIndex, index_source, is_indexed, source_content
from harness.data.formats.token_sources import TokenSource, find_token_source, is_token_source
from harness.data.text_sources.source_size import SourceSizes, SplitSize
from harness.data.text_sources.split import Split
from harness.data.tokens.extents import cut_sequence
from harness.data.tokens.token_sequence import TokenSequence
from harness.data.tokens.tokens import Tokens

__all__ = [
    "TokenSource",
    "check_token_sample",
    "content_of",
    "digests_of",
    "find_token_source",
    "is_ready",
    "is_token_source",
    "measure_token_files",
    "open_token_files",
]
SMALL_BYTES = 2**26
"""Bytes of files up to which a source is indexed at once to be measured."""


@dataclass(frozen=True)
class _Sides:
    """Training and held-out tokens of a source, and how they were divided."""

    split: Split
    train: TokenSequence
    heldout: TokenSequence
    num_documents: Sequence[int]
    """Documents of training, and held-out ones."""
    starts_D: Int64[np.ndarray, " D"] | None
    content: list[str]
    """Hashes of everything that decides the tokens of both sides."""


def open_token_files(source: TokenSource, codec: Codec, holdout: float) -> Tokens:
    """Open the tokens of a source. The first call reads them once for the index of their documents; later
    ones compare sizes, times and inodes. Raises UserError for tokens beyond the vocabulary."""
    sides = _divide(source, codec, holdout)
    key = hash_json(["tokens in files", codec.end_token, holdout, sides.split.value, sides.content])
    return Tokens(key, sides.train, sides.heldout, sides.starts_D)


def measure_token_files(source: TokenSource, codec: Codec, holdout: float, index: bool) -> SourceSizes:
    """Return the sizes of a source. `index`: the index may be made; without it, those of a large source are
    estimated from its files, at once."""
    if not (index or is_ready(source, codec, holdout) or _num_bytes(source) <= SMALL_BYTES):
        return _estimate(source, codec, holdout)
    sides = _divide(source, codec, holdout)
    train, heldout = (
        SplitSize(documents, 0, len(sequence))
        for documents, sequence in zip(sides.num_documents, (sides.train, sides.heldout), strict=True)
    )
    return SourceSizes(train, heldout, sides.split)


def is_ready(source: TokenSource, codec: Codec, holdout: float) -> bool:
    """Return whether the index of a source is in the cache, so that it opens at once."""
    shares = [(source, 0.0 if source.validation else holdout)]
    shares += [(source.validation, 0.0)] if source.validation else []
    return all(is_indexed(part, codec.end_token, share) for part, share in shares)


def content_of(source: TokenSource, codec: Codec) -> str:
    """Return a hash of the tokens and documents of a source, with those of its validation files: the same in
    every format. Makes the index if it is not there."""
    parts = [source, *([source.validation] if source.validation else [])]
    return hash_json([source_content(part, codec.end_token).content for part in parts])


def digests_of(source: TokenSource, codec: Codec) -> dict[str, str]:
    """Return a hash of the tokens of each file by its path in the source."""
    digests = source_content(source, codec.end_token).file_digests
    names = [file.relative_to(source.folder).as_posix() for file in source.files]
    return dict(zip(names, digests, strict=True))


def _divide(source: TokenSource, codec: Codec, holdout: float) -> _Sides:
    """Divide a source: by a file of its own, by documents, by whole files, or at a place in the last one."""
    if source.validation is not None:
        return _divide_by_validation(source, source.validation, codec)
    index = _index(source, codec, holdout)
    if index.has_documents and (all(index.num_documents) or not 0 < holdout < 1):
        sides = index.train, index.heldout, index.num_documents
        return _Sides(Split.documents, *sides, index.starts_D, [index.content])
    if not index.has_documents and len(source.files) > 1:
        return _divide_files(source, index, holdout)
    return _divide_tail(index if not index.has_documents else _index(source, codec, 0.0), holdout)


def _index(source: TokenSource, codec: Codec, holdout: float) -> SourceIndex:
    index = index_source(source, codec.end_token, holdout)
    check_largest(source, index.smallest, index.largest, codec)
    return index


def _divide_by_validation(source: TokenSource, validation: TokenSource, codec: Codec) -> _Sides:
    train, heldout = (_index(part, codec, 0.0) for part in (source, validation))
    documents = max(1, train.num_documents[0]), max(1, heldout.num_documents[0])
    starts_D = train.starts_D if train.has_documents else None
    content = [train.content, heldout.content]
    return _Sides(Split.validation, train.train, heldout.train, documents, starts_D, content)


def _divide_files(source: TokenSource, index: SourceIndex, holdout: float) -> _Sides:
    """Hold out whole files, those whose names have the lowest hashes: at least one, and not all."""
    names = [file.name.split(".")[0] for file in source.files]
    rank_F = sorted(range(len(names)), key=lambda f: (_name_hash(names[f]), f))
    count = min(max(1, round(holdout * len(names))), len(names) - (holdout < 1))
    heldout_files = {*rank_F[:count]}
    parts: dict[bool, list] = {False: [], True: []}
    for number, tokens in enumerate(source.open()):
        parts[number in heldout_files] += tokens.parts
    train, heldout = (TokenSequence.of_parts(parts[side]) for side in (False, True))
    numbers = len(names) - count, count
    return _Sides(
        Split.files, train, heldout, numbers, None, [index.content, *map(str, sorted(heldout_files))]
    )


def _divide_tail(index: SourceIndex, holdout: float) -> _Sides:
    """Hold out the last tokens of a source."""
    cut = len(index.train) - int(holdout * len(index.train))
    train, heldout = (cut_sequence(index.train, *ends) for ends in ((0, cut), (cut, len(index.train))))
    starts_D = index.starts_D[: np.searchsorted(index.starts_D, cut)] if index.has_documents else None
    documents = max(1, index.num_documents[0]), int(bool(len(heldout)))
    return _Sides(Split.tails, train, heldout, documents, starts_D, [index.content])


def _name_hash(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _num_bytes(source: TokenSource) -> int:
    parts = [source, *([source.validation] if source.validation else [])]
    return sum(_file_bytes(part, file) for part in parts for file in range(len(part.files)))


def _file_bytes(source: TokenSource, number: int) -> int:
    tokens = source.samples[number]
    if not tokens.is_sample:
        return len(tokens) * tokens.dtype.itemsize
    return source.files[number].stat().st_size


def _estimate(source: TokenSource, codec: Codec, holdout: float) -> SourceSizes:
    """Return sizes from the number of tokens, and the documents of a sample."""
    tokens = _estimate_tokens(source)
    documents = max(1, round(tokens * _end_share(source, codec)))
    if source.validation is not None:
        heldout = SplitSize(1, 0, _estimate_tokens(source.validation))
        return SourceSizes(SplitSize(documents, 0, tokens), heldout, Split.validation, is_sampled=True)
    num_heldout = round(tokens * holdout)
    train = SplitSize(documents, 0, tokens - num_heldout)
    heldout = SplitSize(max(1, round(documents * holdout)), 0, num_heldout)
    return SourceSizes(train, heldout, is_sampled=True)


def _estimate_tokens(source: TokenSource) -> int:
    return sum(
        len(tokens) if not tokens.is_sample else file.stat().st_size // tokens.dtype.itemsize
        for file, tokens in zip(source.files, source.samples, strict=True)
    )


def _end_share(source: TokenSource, codec: Codec) -> float:
    """Return the share of end tokens at the start of the first file."""
    if codec.end_token is None:
        return 0.0
    first = next(tokens for tokens in source.samples if len(tokens))
    sample = first.parts[0].read(0, min(len(first.parts[0]), 2**16))
    return float((sample == codec.end_token).mean())
