"""Content, sizes, facts and checks of text data before it is tokenised. Files are read once per version."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.config.schema.run import DataConfig
from harness.core.atomic_files import file_sha256, read_json, write_json
from harness.core.cache.cache_dir import cache_dir
from harness.core.errors import UserError
from harness.core.hashing import hash_json
from harness.data.order.mixture_schedule import check_mixes, mix_schedule, trained_sources
from harness.data.text.sources import Source, find_source, is_heldout, suffix_of
from harness.data.text.tokenizers import load_tokenizer

FORMAT = 1
"""Version of the cache. Raise it when the same files come to mean other documents or tokens."""
TEXT, IMAGES = ("window", "text"), ("image", "images")
"""Words for an example and for the content of a source, in messages."""


@dataclass(frozen=True)
class DataFacts:
    """Facts of a run's data."""

    vocabulary: int
    """Number of tokens; for images the number of classes plus one for no label."""
    end_token: int | None
    """Token that ends a document; None for images."""
    fingerprint: str
    """Hash of everything except the data seed that decides the batches."""
    eval_fingerprint: str
    """Hash of everything that decides the held-out tokens."""
    domains: tuple[str, ...]
    image: tuple[int, int, int] | None = None
    """Height, width, channels; None for text."""


def describe_text(config: DataConfig, eval_tokens: int) -> DataFacts:
    """Check a data config without tokenising, and return its facts. Raises UserError. A source is read once
    per version of its files; later calls only compare file sizes and times."""
    sources, trained = check_text_config(config), trained_sources(config)
    codec = load_tokenizer(config.tokenizer)
    for source in sources:
        _check_size(source, source.name in trained, config, eval_tokens)
    base = {
        "sources": {source.name: content_hash(source) for source in sources},
        "tokenizer": codec.fingerprint,
        "sequence_length": config.sequence_length,
        "holdout": config.holdout,
    }
    return DataFacts(
        vocabulary=codec.vocabulary,
        end_token=codec.end_token,
        fingerprint=hash_json(base | {"mixes": mix_schedule(config)}),
        eval_fingerprint=hash_json(base | {"tokens": eval_tokens}),
        domains=tuple(source.name for source in sources),
    )


def check_text_config(config: DataConfig) -> list[Source]:
    """Return the sources sorted by name. Raises UserError for a missing file or a bad weight."""
    if not config.sources:
        raise UserError("data.sources={} names no source. Add a source, for example pack:prose.")
    check_mixes(config)
    return [find_source(name, config.sources[name]) for name in sorted(config.sources)]


def too_few_tokens(source: Source, tokens: int, length: int) -> UserError:
    """Return the error for a source with less than one training window."""
    return UserError(
        f"{source.key}.path={source.path} has {tokens} training tokens, less than one window of "
        f"data.sequence_length={length}. Give more text or a shorter sequence."
    )


def num_heldout(name: str, tokens: int, length: int, available: int, kind: tuple[str, str] = TEXT) -> int:
    """Return the number of held-out examples of `length` tokens that are worth `tokens`. Raises UserError if
    that is none, or more than the `available` ones of the source `name`."""
    example, content = kind
    count = tokens // length
    if not count:
        minimum = f"give at least data.sequence_length={length}"
        raise UserError(f"evaluation.tokens={tokens} is less than one {example}: {minimum}")
    if count > available:
        raise UserError(
            f"evaluation.tokens={tokens} is more than data.sources.{name} holds out ({available * length}): "
            f"lower it, raise data.holdout, or give more {content}"
        )
    return count


def _check_size(source: Source, trained: bool, config: DataConfig, eval_tokens: int) -> None:
    """Raise UserError if a source is too small at its upper bound of tokens: bytes + documents."""
    sizes = measure_source(source, config.holdout)
    length = config.sequence_length
    documents = sizes.train.documents + sizes.heldout.documents
    if not documents:
        raise UserError(f"{source.key}.path={source.path} is empty: give a file with text in it")
    if not sizes.heldout.documents:
        raise UserError(
            f"{source.key}.path={source.path} has no held-out documents ({documents} in all, "
            f"data.holdout={config.holdout}): give more documents or a larger share"
        )
    if trained and (max_tokens := sizes.train.bytes + sizes.train.documents) <= length:
        raise too_few_tokens(source, max_tokens, length)
    windows = (sizes.heldout.bytes + sizes.heldout.documents - 1) // length
    num_heldout(source.name, eval_tokens, length, windows)


@dataclass(frozen=True)
class SplitSize:
    """Number of documents and UTF-8 bytes of one split."""

    documents: int
    bytes: int


@dataclass(frozen=True)
class SourceSizes:
    """Sizes of a source's training and held-out splits."""

    train: SplitSize
    heldout: SplitSize


def content_hash(source: Source) -> str:
    """Return a hash that changes with the documents of a source or their order."""
    return hash_json([FORMAT, source.column, [[suffix_of(file), _file_hash(file)] for file in source.files]])


def measure_source(source: Source, holdout: float) -> SourceSizes:
    """Return the sizes of a source; the first call reads it. Raises UserError for a bad document."""
    key = [content_hash(source), holdout]
    sizes = _cached("survey", hash_json(key), key, lambda: dataclasses.asdict(_count(source, holdout)))
    return SourceSizes(SplitSize(**sizes["train"]), SplitSize(**sizes["heldout"]))


def _count(source: Source, holdout: float) -> SourceSizes:
    counts = {True: [0, 0], False: [0, 0]}
    for text in source.documents():
        count = counts[is_heldout(text, holdout)]
        count[0] += 1
        count[1] += len(text.encode())
    return SourceSizes(train=SplitSize(*counts[False]), heldout=SplitSize(*counts[True]))


def _file_hash(file: Path) -> str:
    path, state = file.resolve(), file.stat()
    name = hashlib.sha256(str(path).encode()).hexdigest()
    version = [FORMAT, str(path), state.st_size, state.st_mtime_ns]
    return _cached("files", name, version, lambda: file_sha256(path))


def _cached(kind: str, name: str, version: list[Any], compute: Callable[[], Any]) -> Any:
    """Return the cached value of a name; compute it again for another version."""
    file = cache_dir("tokens") / kind / f"{name}.json"
    record = read_json(file)
    if not isinstance(record, dict) or record.get("version") != version:
        record = {"version": version, "value": compute()}
        write_json(file, record)
    return record["value"]
