"""Checks of a source of tokens by samples of its files, before anything is trained: the dtype, the
vocabulary, and the tokenizer of each file."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from harness.core.errors import UserError
from harness.data.codecs.codec import Codec, UnknownCodec
from harness.data.formats.token_format import FileTokens
from harness.data.formats.token_sources import TokenSource
from harness.data.tokens.token_sequence import TokenFile, TokenSequence

SAMPLE_TOKENS = 4096
"""Tokens of a file that are read at its start, its middle and its end."""
SAMPLE_FILES = 64
"""Number of files of a source that are tried, spread evenly over it."""
MIN_AGREEMENT = 0.9
"""Share of the pairs of neighbouring tokens of a sample that come back when its text is encoded again: all
with the right tokenizer, mostly 10 to 90 % with another one of byte-level BPE."""
EDGE = 4
"""Tokens at each end of a piece of text that may come back otherwise: a character or word was cut there."""
MIN_OVERLAP = 0.02
"""Share of their tokens that two samples have in common. Prose and code have 20 to 60 % with one tokenizer.
Two whose tokens for bytes and frequent words have the same numbers are not told apart."""
MIN_PAIRS = 64
"""Pairs of tokens below which a sample says nothing about the tokenizer."""
DTYPES = ("uint16", "uint32", "int32", "int64")


@dataclass(frozen=True)
class _Sample:
    file: Path
    places: tuple[Int64[np.ndarray, " N"], ...]
    tokens: FileTokens

    @property
    def all_tokens(self) -> Int64[np.ndarray, " N"]:
        return np.concatenate(self.places)


def check_token_sample(source: TokenSource, codec: Codec) -> None:
    """Raise UserError if samples of the files do not fit the dtype, the vocabulary or the tokenizer, or files
    not each other. Reads little, so that a dry run can do it."""
    samples = _read_samples(source)
    for sample in samples:
        _check_range(source, sample, codec)
        _check_width(source, sample)
    if isinstance(codec, UnknownCodec):
        _check_one_tokenizer(source, samples)
    else:
        _check_tokenizer(source, samples, codec)
    if source.validation is not None:
        check_token_sample(source.validation, codec)


def check_largest(source: TokenSource, smallest: int, largest: int, codec: Codec) -> None:
    """Raise UserError if the tokens of a source, all of which were read, are beyond the vocabulary."""
    if largest >= codec.vocabulary or smallest < 0:
        token = smallest if smallest < 0 else largest
        raise _beyond(f"{source.setting}={source.path}", token, codec, "")


def _read_samples(source: TokenSource) -> list[_Sample]:
    pairs = [pair for pair in zip(source.files, source.samples, strict=True) if len(pair[1])]
    return [_read_sample(*pair) for pair in pairs[:: -(-len(pairs) // SAMPLE_FILES)]]


def _read_sample(file: Path, tokens: FileTokens) -> _Sample:
    sequence = TokenSequence.of_parts(tokens.parts)
    count = min(SAMPLE_TOKENS, len(sequence))
    starts = {0, (len(sequence) - count) // 2, len(sequence) - count}
    return _Sample(file, tuple(_raw(tokens, start, count) for start in sorted(starts)), tokens)


def _raw(tokens: FileTokens, start: int, count: int) -> Int64[np.ndarray, " N"]:
    """Return tokens as they are, which may be none: outside int32."""
    pieces, before = [], 0
    for part in tokens.parts:
        first, stop = max(start, before), min(start + count, before + len(part))
        if first < stop:
            pieces.append(part.read(first - before, stop - first).astype(np.int64))
        before += len(part)
    return np.concatenate(pieces)


def _check_range(source: TokenSource, sample: _Sample, codec: Codec) -> None:
    """Raise UserError for a token beyond the vocabulary."""
    tokens = sample.all_tokens
    smallest, largest = int(tokens.min()), int(tokens.max())
    if smallest < 0 or largest >= codec.vocabulary:
        raise _beyond(
            source.where(sample.file),
            smallest if smallest < 0 else largest,
            codec,
            _likely_dtype(sample, codec.vocabulary),
        )


def _beyond(where: str, token: int, codec: Codec, dtype: str) -> UserError:
    if dtype:
        way_out = (
            f"read as {dtype}, the tokens are within it: correct the dtype of the file or of its options"
        )
    elif isinstance(codec, UnknownCodec):
        way_out = f"set data.vocabulary to at least {token + 1}, or correct the dtype of the file"
    else:
        way_out = "set data.tokenizer to the one that made the tokens, or correct the dtype of the file"
    return UserError(
        f"{where} holds the token {token}, beyond the vocabulary of {codec.vocabulary} tokens"
        f" ({'data.vocabulary' if isinstance(codec, UnknownCodec) else 'data.tokenizer'}), so {way_out}."
    )


def _likely_dtype(sample: _Sample, vocabulary: int) -> str:
    """Return the dtype with which a sample would be within the vocabulary; empty if there is none."""
    part = next(part for part in sample.tokens.parts if len(part))
    if not isinstance(part, TokenFile):
        return ""
    for name in DTYPES:
        dtype = np.dtype(name).newbyteorder("<")
        count = min(SAMPLE_TOKENS, part.count * part.dtype.itemsize // dtype.itemsize)
        if dtype == part.dtype or not count:
            continue
        tokens_N = TokenFile(part.path, part.offset, dtype, count).read(0, count)
        if int(tokens_N.min()) >= 0 and int(tokens_N.max()) < vocabulary and not _alternates(tokens_N):
            return name
    return ""


def _check_width(source: TokenSource, sample: _Sample) -> None:
    """Raise UserError if every second token is 0, as in wide integers that are read as narrow ones."""
    if all(map(_alternates, sample.places)):
        wide = f"uint{16 * sample.tokens.dtype.itemsize}"
        raise UserError(
            f"{source.where(sample.file)} holds a token and then (almost) nothing in turn, read as"
            f" {sample.tokens.dtype.name}, so its tokens are wider: correct the dtype, such as {wide}."
        )


def _alternates(tokens_N: np.ndarray) -> bool:
    """Return whether every second number is at most 3, and the others are not."""
    if len(tokens_N) < MIN_PAIRS:
        return False
    halves = tokens_N[0::2], tokens_N[1::2]
    low, high = sorted(halves, key=lambda half: int(half.max()))
    return int(low.max()) <= 3 and bool(np.median(high) > 3)


def _check_tokenizer(source: TokenSource, samples: list[_Sample], codec: Codec) -> None:
    """Raise UserError if the text of a sample, encoded again, gives other tokens."""
    for sample in samples:
        share = agreement(sample.places, codec)
        if share is not None and share < MIN_AGREEMENT:
            raise UserError(
                f"{source.where(sample.file)} was not made with data.tokenizer: only {share:.0%} of its"
                " tokens come back when they are decoded and encoded again, so set data.tokenizer to the one"
                " that made them, or to none, with data.vocabulary and data.end_token."
            )


def agreement(places: tuple[Int64[np.ndarray, " N"], ...], codec: Codec) -> float | None:
    """Return the share of pairs of neighbouring tokens that come back from their text; None for too few."""
    count = common = 0
    for tokens in places:
        is_special = codec.byte_lengths_V[tokens] == 0
        for piece in np.split(tokens, np.flatnonzero(is_special)):
            plain = piece[codec.byte_lengths_V[piece] > 0]
            if len(plain) <= 2 * EDGE:
                continue
            (after,) = codec.encode([codec.decode(plain)])
            before = Counter(itertools.pairwise(plain[EDGE:-EDGE].tolist()))
            common += sum((before & Counter(itertools.pairwise(after.tolist()))).values())
            count += before.total()
    return common / count if count >= MIN_PAIRS else None


def _check_one_tokenizer(source: TokenSource, samples: list[_Sample]) -> None:
    """Raise UserError if the tokens of a file are others than those of the first."""
    for sample in samples[1:]:
        share = overlap(samples[0].all_tokens, sample.all_tokens)
        if share is not None and share < MIN_OVERLAP:
            raise UserError(
                f"{source.where(sample.file)} has {share:.0%} of its tokens in common with"
                f" {samples[0].file.name}, so they are of different tokenizers. Make both with one, or give"
                " data.tokenizer, which is then tried on each."
            )


def overlap(tokens_N: Int64[np.ndarray, " N"], tokens_M: Int64[np.ndarray, " M"]) -> float | None:
    """Return the common area of the distributions of tokens of two samples; None for too few."""
    if min(len(tokens_N), len(tokens_M)) < SAMPLE_TOKENS:
        return None
    size = int(max(tokens_N.max(), tokens_M.max())) + 1
    shares = [np.bincount(tokens, minlength=size) / len(tokens) for tokens in (tokens_N, tokens_M)]
    return float(np.minimum(*shares).sum())
