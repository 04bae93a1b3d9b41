"""Validation sets of their own (`evaluation.sets`): found, checked, described and opened."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from harness.config.schema.data import SourceConfig
from harness.config.schema.run import Config
from harness.config.schema.run_schedule import EvaluationSetConfig
from harness.core.errors import UserError
from harness.core.hashing import hash_json
from harness.data.codecs.tokenizer_file import load_codec
from harness.data.evaluation.contamination import VERSION, TrainingText
from harness.data.evaluation.window_choice import SetWindows, WindowChoice, choose_windows
from harness.data.order.mixture_schedule import trained_sources
from harness.data.text.corpus import HeldOut, Windows
from harness.data.text.describe_text import DataFacts, check_text_config
from harness.data.text.set_summary import SetSummary
from harness.data.text.token_cache import is_tokenised
from harness.data.text.training_source import TextSource, TrainingSource, find_training_source
from harness.data.text_sources.split import Split

SEARCHED_TOKENS = 2**27
"""Training tokens up to which sets are compared with them while a run is described: a second or two."""
_NAME = re.compile(r"[\w.+-]+")


def heldout_sets(config: Config) -> dict[str, HeldOut]:
    """Return the rows of each validation set, the same for every run. What was not compared with the training
    text yet is compared. Raises UserError for a set that cannot be evaluated."""
    sources, rows = find_sets(config), dict[str, HeldOut]()
    texts = _training_texts(config) if sources else []
    for source in sources:
        heldout_set = _open_set(source, config)
        choice = _choose(heldout_set, config, texts, math.inf)
        assert choice is not None
        tokens_NT = heldout_set.windows[choice.window_N]
        byte_lengths_V = load_codec(config.data).byte_lengths_V
        rows[source.name] = HeldOut(tokens_NT, int(byte_lengths_V[tokens_NT[:, 1:]].sum()))
    return rows


def with_sets(facts: DataFacts, config: Config) -> DataFacts:
    """Return the facts of a run's data with its validation sets. Raises UserError. Nothing is tokenised here,
    and no long text searched: the facts of such a set are estimates."""
    sources = find_sets(config)
    if not sources:
        return facts
    texts = _training_texts(config) if _are_built(config) else None
    sets = {source.name: _describe(source, config, texts) for source in sources}
    contents = {name: summary.content for name, summary in sets.items()}
    inputs = [facts.eval_fingerprint, contents, config.evaluation.decontaminate, VERSION]
    domains = (*facts.domains, *sets)
    return dataclasses.replace(facts, domains=domains, sets=sets, eval_fingerprint=hash_json(inputs))


def find_sets(config: Config) -> list[TrainingSource]:
    """Return the sets of a config sorted by name. Raises UserError for one that cannot be a set."""
    sets = config.evaluation.sets
    if sets and config.data.kind != "text":
        raise UserError(f"evaluation.sets is for text, but data.kind={config.data.kind}. Leave it out.")
    _check_ngrams(config)
    sources = []
    for name in sorted(sets):
        _check_name(name, config)
        with _as_set(name):
            sources.append(_find_set(name, sets[name], config))
    return sources


def _find_set(name: str, node: EvaluationSetConfig, config: Config) -> TrainingSource:
    """Return a set as a source of which everything is held out. Raises UserError if its files are those of a
    source."""
    source = SourceConfig(node.path, 0.0, node.column, node.format, node.options)
    codec, data = load_codec(config.data), dataclasses.replace(config.data, holdout=1.0)
    set_source = find_training_source(name, source, data, codec)
    files = {file.resolve() for file in set_source.source.files}
    for trained_source in check_text_config(config.data):
        if not files.isdisjoint(file.resolve() for file in trained_source.source.files):
            raise UserError(
                f"evaluation.sets.{name}.path={node.path} holds files of {trained_source.where}, which runs "
                "train on. Give other files, or move these out of the source."
            )
    return set_source


def _check_name(name: str, config: Config) -> None:
    if not _NAME.fullmatch(str(name)):
        raise UserError(
            f"evaluation.sets.{name}: the name of a set stands in tables and keys. Use letters, digits, '.', "
            "'-', '+' and '_'."
        )
    if name in config.data.sources:
        raise UserError(
            f"evaluation.sets.{name}: data.sources has this name too, and its held-out part is evaluated "
            "under it. Choose another name for the set."
        )


def _check_ngrams(config: Config) -> None:
    ngram, length = config.evaluation.decontaminate, config.data.sequence_length
    if config.evaluation.sets and ngram > length:
        raise UserError(
            f"evaluation.decontaminate={ngram} is more than data.sequence_length={length}, so no window "
            "holds such an n-gram. Give fewer tokens, or 0."
        )


@contextmanager
def _as_set(name: str) -> Iterator[None]:
    """Name the key of the set in messages, which name a source's where a source is read."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace(f"data.sources.{name}.", f"evaluation.sets.{name}.")) from error


def _open_set(source: TrainingSource, config: Config) -> SetWindows:
    """Open a set, tokenising it if need be. Raises UserError for less than a window."""
    with _as_set(source.name):
        tokens = source.open(trained=False)
        _check_size(source, len(tokens.heldout), config.data.sequence_length)
    return SetWindows(source.name, tokens.key, Windows(tokens.heldout, config.data.sequence_length))


def _check_size(source: TrainingSource, max_tokens: int, length: int) -> None:
    if not max_tokens:
        raise UserError(f"{source.where} is empty: give a file with text in it")
    if max_tokens <= length:
        raise UserError(
            f"{source.where} has {max_tokens} tokens, less than one window of data.sequence_length={length}. "
            "Give more text or a shorter sequence."
        )


def _choose(
    heldout_set: SetWindows, config: Config, texts: Sequence[TrainingText], limit: float
) -> WindowChoice | None:
    """Choose the windows that are evaluated. Raises UserError if all stand in the training text."""
    count = min(config.evaluation.tokens // config.data.sequence_length, len(heldout_set.windows))
    ngram = config.evaluation.decontaminate
    choice = choose_windows(heldout_set, count, texts, ngram, limit)
    if choice is not None and not len(choice.window_N):
        where = f"evaluation.sets.{heldout_set.name}.path={config.evaluation.sets[heldout_set.name].path}"
        raise UserError(
            f"{where}: every window stands in the training text (evaluation.decontaminate={ngram} tokens at "
            "a time). Give another set, longer n-grams, or 0 to keep all."
        )
    return choice


def _training_texts(config: Config) -> list[TrainingText]:
    """Return the training tokens of all sources, of weight 0 too: so variants that mix the same sources in
    other ways are evaluated on the same windows. Empty if sets are not compared with them."""
    if not config.evaluation.decontaminate:
        return []
    trained = trained_sources(config.data)
    tokens = {source.name: source.open(source.name in trained) for source in check_text_config(config.data)}
    return [TrainingText(name, both.key, both.train) for name, both in tokens.items()]


def _are_built(config: Config) -> bool:
    """Return whether the tokens of all sources with which sets are compared lie in the cache."""
    trained = trained_sources(config.data)
    sources = check_text_config(config.data) if config.evaluation.decontaminate else []
    return all(_is_built(source, source.name in trained) for source in sources)


def _is_built(source: TrainingSource, trained: bool) -> bool:
    if not isinstance(source, TextSource):
        return not source.needs_build()
    split = source.measure(trained).split
    encoding = source.encoding if split is Split.validation else source.encoding.with_split(split)
    return all(is_tokenised(part, encoding) for part in source.parts)


def _describe(source: TrainingSource, config: Config, texts: Sequence[TrainingText] | None) -> SetSummary:
    """Return the summary of a set. `texts`: those that it is compared with; None: they are not there yet."""
    length, choice = config.data.sequence_length, None
    with _as_set(source.name):
        side, ratio = source.measure(trained=False).heldout, source.tokens_per_byte()
        _check_size(source, side.bytes + side.documents if side.tokens is None else side.tokens, length)
        is_built = _is_built(source, trained=False)
    if texts is not None and is_built:
        choice = _choose(_open_set(source, config), config, texts, SEARCHED_TOKENS)
    available = side.tokens if side.tokens is not None else round(side.bytes * ratio) + side.documents
    windows = min(config.evaluation.tokens, available) // length if choice is None else len(choice.window_N)
    return SetSummary(
        content=source.content(),
        files=len(source.source.files),
        tokens=windows * length,
        available=available,
        is_estimate=choice is None,
        ngram=config.evaluation.decontaminate,
        left_out_share=choice.left_out_share if choice else None,
        touched_share=choice.touched_share if choice else None,
    )
