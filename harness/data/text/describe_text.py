"""Facts and checks of text data before training."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from harness.config.schema.data import DataConfig, Order, Packing
from harness.core.errors import UserError
from harness.core.hashing import hash_json
from harness.data.codecs.codec import ByteCodec, Codec
from harness.data.codecs.tokenizer_file import load_codec
from harness.data.order.mixture_schedule import check_mixes, mix_schedule, trained_sources
from harness.data.order.packed_rows import PackedRows
from harness.data.order.training_rows import open_rows
from harness.data.text.set_summary import SetSummary
from harness.data.text.source_summary import SourceSummary
from harness.data.text.training_source import TrainingSource, find_training_sources
from harness.data.text_sources.source_size import SourceSizes, SplitSize
from harness.data.text_sources.split import Split
from harness.data.tokens.tokens import Tokens

COUNTED_BELOW = 2.0
"""Estimated tokens, as a multiple of those needed, below which a source is tokenised to count them."""
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
    tokenizer: str = ""
    """Fingerprint of the tokenizer; empty for images."""
    sources: dict[str, SourceSummary] = field(default_factory=dict)
    row: tuple[int, ...] | None = None
    """Shape of an example of data of a user's own; None for text and images."""
    dtype: str = "int32"
    """Dtype of the examples."""
    sets: dict[str, SetSummary] = field(default_factory=dict)
    """Validation sets by name."""


def describe_text(config: DataConfig, eval_tokens: int) -> DataFacts:
    """Check a data config and return its facts. Raises UserError. A small source is read once per version of
    its files, and tokenised only if it may have too few tokens. A large one that nobody has read yet is
    estimated; its part of the fingerprint is then that of the files' sizes and times."""
    sources, trained = check_text_config(config), trained_sources(config)
    sizes = {source.name: source.measure(source.name in trained) for source in sources}
    for source in sources:
        _check_size(source, sizes[source.name], source.name in trained, config, eval_tokens)
    ratios = {source.name: source.tokens_per_byte() for source in sources}
    for source in sources:
        train_tokens = config.sequence_length * (source.name in trained)
        size = sizes[source.name]
        if not size.is_sampled and _may_lack_tokens(size, ratios[source.name], eval_tokens, train_tokens):
            tokens = source.open(source.name in trained)
            _check_tokens(source, tokens, source.name in trained, config.sequence_length, eval_tokens)
    tails = [name for name, size in sizes.items() if size.split is Split.tails]
    by_name = {source.name: source for source in sources}
    contents = {name: source.content() for name, source in by_name.items()}
    codec = load_codec(config)
    if config.mask_documents and codec.end_token is None:
        raise UserError(
            "data.mask_documents=true needs the token that ends a document, but data.end_token=null. Set "
            "data.end_token, or set data.mask_documents=false."
        )
    base = {
        "sources": contents,
        "tokenizer": codec.fingerprint,
        "sequence_length": config.sequence_length,
        "holdout": config.holdout,
        **({"tails": tails} if tails else {}),  # without them, the hash is that of earlier versions
    }
    return DataFacts(
        vocabulary=codec.vocabulary,
        end_token=codec.end_token,
        fingerprint=hash_json(base | {"mixes": mix_schedule(config)} | _other_orders(config)),
        eval_fingerprint=hash_json(base | {"tokens": eval_tokens}),
        domains=tuple(source.name for source in sources),
        tokenizer=codec.fingerprint,
        sources={
            name: _with_packing(
                _summarize(source, contents[name], sizes[name], ratios[name], codec),
                _packed_rows(source, name in trained, config),
            )
            for name, source in by_name.items()
        },
    )


def _other_orders(config: DataConfig) -> dict[str, Any]:
    """Return what decides the examples and their order beside the mixes; empty for the defaults, so that the
    fingerprint is that of earlier versions."""
    packing = {} if config.packing is Packing.concatenate else {"packing": config.packing.value}
    order = {} if config.order is Order.random else {"order": config.order.value}
    block = {"order_block": config.order_block} if config.order is Order.blocks else {}
    horizon = {"horizon": config.horizon} if config.order is Order.length else {}
    return packing | order | block | horizon


def check_text_config(config: DataConfig) -> list[TrainingSource]:
    """Return the sources sorted by name. Raises UserError for a missing file or a bad weight."""
    if not config.sources:
        raise UserError("data.sources={} names no source. Add a source, for example pack:prose.")
    check_mixes(config)
    return find_training_sources(config)


def too_few_tokens(source: TrainingSource, tokens: int, length: int) -> UserError:
    """Return the error for a source with less than one training window."""
    return UserError(
        f"{source.where} has {tokens} training tokens, less than one window of "
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


def _check_size(
    source: TrainingSource, sizes: SourceSizes, trained: bool, config: DataConfig, eval_tokens: int
) -> None:
    """Raise UserError if a source is too small at its upper bound of tokens: bytes + documents."""
    length = config.sequence_length
    if not sizes.documents:
        raise UserError(f"{source.where} is empty: give a file with text in it")
    if not sizes.heldout.documents:
        raise UserError(
            f"{source.where} has no held-out text ({sizes.documents} documents, "
            f"data.holdout={config.holdout}): give more text or a larger share"
        )
    if trained and (max_tokens := _max_tokens(sizes.train)) <= length:
        raise too_few_tokens(source, max_tokens, length)
    windows = (_max_tokens(sizes.heldout) - 1) // length
    num_heldout(source.name, eval_tokens, length, windows)


def _max_tokens(side: SplitSize) -> int:
    return side.tokens if side.tokens is not None else side.bytes + side.documents


def _may_lack_tokens(sizes: SourceSizes, ratio: float, eval_tokens: int, train_tokens: int) -> bool:
    """Return whether an estimate, from tokens per byte, comes near to the tokens that are needed."""
    needs = ((sizes.heldout, eval_tokens), (sizes.train, train_tokens))
    return any(_num_tokens(side, ratio) < COUNTED_BELOW * tokens for side, tokens in needs)


def _num_tokens(side: SplitSize, ratio: float) -> int:
    """Return the tokens of a split: counted, or estimated."""
    return side.tokens if side.tokens is not None else round(side.bytes * ratio) + side.documents


def _check_tokens(
    source: TrainingSource, tokens: Tokens, trained: bool, length: int, eval_tokens: int
) -> None:
    """Raise UserError if a source has too few tokens, which the bytes could not tell."""
    if trained and len(tokens.train) <= length:
        raise too_few_tokens(source, len(tokens.train), length)
    num_heldout(source.name, eval_tokens, length, max(0, len(tokens.heldout) - 1) // length)


def _packed_rows(source: TrainingSource, trained: bool, config: DataConfig) -> PackedRows | None:
    """Return the packed rows of a source; None if it is not packed, or not tokenised yet. Raises UserError if
    a config needs to know where documents begin, and nothing tells."""
    asks_documents = config.packing is Packing.best_fit or config.order is Order.length
    if not (asks_documents and trained) or source.needs_build():
        return None
    rows = open_rows(source.open(trained), config, source.where)
    return rows if isinstance(rows, PackedRows) else None


def _with_packing(summary: SourceSummary, rows: PackedRows | None) -> SourceSummary:
    if rows is None:
        return summary
    facts = rows.facts
    return replace(summary, packed_rows=facts.rows, padding=facts.padding, cut_documents=facts.cut)


def _summarize(
    source: TrainingSource, content: str, sizes: SourceSizes, ratio: float, codec: Codec
) -> SourceSummary:
    return SourceSummary(
        content=content,
        files=len(source.source.files),
        documents=sizes.documents,
        train_tokens=_num_tokens(sizes.train, ratio),
        is_estimate=sizes.train.tokens is None and not isinstance(codec, ByteCodec),
        heldout_share=sizes.heldout_share,
        split=sizes.split.value,
        skipped=[*source.source.skipped],
        is_sampled=sizes.is_sampled,
        digests=source.digests(),
    )
