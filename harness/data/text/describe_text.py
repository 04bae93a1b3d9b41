"""What is known of the data before any of it is tokenised."""

from __future__ import annotations

from dataclasses import dataclass

from harness.config.schema.run import DataConfig
from harness.core.errors import UserError
from harness.core.hashing import digest
from harness.data.order.mixture_schedule import check_mixes, plan_of, trained_on
from harness.data.text.source_survey import content_hash, survey
from harness.data.text.sources import Source, locate
from harness.data.text.tokenizers import load


@dataclass(frozen=True)
class DataFacts:
    vocabulary: int
    """Tokens; of images the classes, and one for no label."""
    end: int | None
    """The token that ends a document; None where there are none."""
    fingerprint: str
    """Hash of all that decides the batches but the data seed."""
    eval_fingerprint: str
    """Hash of all that decides the held-out tokens."""
    domains: tuple[str, ...]
    image: tuple[int, int, int] | None = None
    """Height, width, channels; None for text."""


def describe_data(config: DataConfig, eval_tokens: int) -> DataFacts:
    """Check a data config as far as that goes without tokenising. Raises UserError.

    A source is read once per version of its files; after that only their sizes and times are."""
    sources, trained = check_config(config), trained_on(config)
    codec = load(config.tokenizer)
    for source in sources:
        _check_amount(source, source.name in trained, config, eval_tokens)
    base = {
        "sources": {source.name: content_hash(source) for source in sources},
        "tokenizer": codec.fingerprint,
        "sequence_length": config.sequence_length,
        "holdout": config.holdout,
    }
    return DataFacts(
        vocabulary=codec.vocabulary,
        end=codec.end,
        fingerprint=digest(base | {"mixes": plan_of(config)}),
        eval_fingerprint=digest(base | {"tokens": eval_tokens}),
        domains=tuple(source.name for source in sources),
    )


def check_config(config: DataConfig) -> list[Source]:
    """The sources of a config in the order of their names, all found, with numbers that make sense."""
    if not config.sources:
        raise UserError("data.sources={} names nothing to read: add a source, for example pack:prose")
    if config.sequence_length < 1:
        raise UserError(f"data.sequence_length={config.sequence_length} is no length: give 1 or more")
    if not 0 < config.holdout < 1:
        raise UserError(f"data.holdout={config.holdout} is not between 0 and 1: give a share such as 0.05")
    check_mixes(config)
    return [locate(name, config.sources[name]) for name in sorted(config.sources)]


def too_few(source: Source, tokens: int, length: int) -> UserError:
    """Why a source cannot be trained on."""
    return UserError(
        f"{source.key}.path={source.path} has {tokens} training tokens, fewer than one window of "
        f"data.sequence_length={length} needs: give more text or a shorter sequence"
    )


def too_short(name: str, tokens: int, length: int, windows: int) -> UserError:
    """Why a domain has not the held-out tokens that an evaluation asks for."""
    if tokens < length:
        return UserError(
            f"evaluation.tokens={tokens} is less than one window: give at least data.sequence_length={length}"
        )
    return UserError(
        f"evaluation.tokens={tokens} is more than data.sources.{name} holds out ({windows * length}): "
        "lower it, raise data.holdout, or give more text"
    )


def _check_amount(source: Source, trained: bool, config: DataConfig, eval_tokens: int) -> None:
    """A document has at most as many tokens as bytes, and one that ends it: what fails so, fails."""
    found = survey(source, config.holdout)
    length = config.sequence_length
    documents = found.train.documents + found.heldout.documents
    if not documents:
        raise UserError(f"{source.key}.path={source.path} is empty: give a file with text in it")
    if not found.heldout.documents:
        raise UserError(
            f"{source.key}.path={source.path} has no held-out documents ({documents} in all, "
            f"data.holdout={config.holdout}): give more documents or a larger share"
        )
    if trained and (most := found.train.bytes + found.train.documents) <= length:
        raise too_few(source, most, length)
    windows = (found.heldout.bytes + found.heldout.documents - 1) // length
    if not 0 < eval_tokens // length <= windows:
        raise too_short(source.name, eval_tokens, length, windows)
