"""Facts and checks of text data before it is tokenised."""

from __future__ import annotations

from dataclasses import dataclass

from harness.config.schema.run import DataConfig
from harness.core.errors import UserError
from harness.core.hashing import hash_json
from harness.data.order.mixture_schedule import check_mixes, mix_schedule, trained_sources
from harness.data.text.source_survey import content_hash, measure_source
from harness.data.text.sources import Source, find_source
from harness.data.text.tokenizers import load_tokenizer


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
    """Return the sources sorted by name. Raises UserError for a missing file or a bad number."""
    if not config.sources:
        raise UserError("data.sources={} names no source. Add a source, for example pack:prose.")
    if config.sequence_length < 1:
        raise UserError(f"data.sequence_length={config.sequence_length} is not a length. Give 1 or more.")
    if not 0 < config.holdout < 1:
        raise UserError(f"data.holdout={config.holdout} is not between 0 and 1: give a share such as 0.05")
    check_mixes(config)
    return [find_source(name, config.sources[name]) for name in sorted(config.sources)]


def too_few_tokens(source: Source, tokens: int, length: int) -> UserError:
    """Return the error for a source with less than one training window."""
    return UserError(
        f"{source.key}.path={source.path} has {tokens} training tokens, less than one window of "
        f"data.sequence_length={length}. Give more text or a shorter sequence."
    )


def too_few_heldout(name: str, tokens: int, length: int, windows: int) -> UserError:
    """Return the error for a domain without the held-out tokens that an evaluation needs."""
    if tokens < length:
        return UserError(
            f"evaluation.tokens={tokens} is less than one window: give at least data.sequence_length={length}"
        )
    return UserError(
        f"evaluation.tokens={tokens} is more than data.sources.{name} holds out ({windows * length}): "
        "lower it, raise data.holdout, or give more text"
    )


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
    if not 0 < eval_tokens // length <= windows:
        raise too_few_heldout(source.name, eval_tokens, length, windows)
