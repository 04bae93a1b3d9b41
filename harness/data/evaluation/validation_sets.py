"""Validation sets of their own (`evaluation.sets`): found, checked, described and opened."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from harness.config.schema.run import Config, SourceConfig
from harness.config.schema.run_schedule import EvaluationSetConfig
from harness.core.errors import UserError
from harness.core.hashing import hash_json
from harness.data.evaluation.contamination import VERSION, TrainingText
from harness.data.evaluation.set_summary import SetSummary
from harness.data.evaluation.window_choice import SetWindows, WindowChoice, choose_windows
from harness.data.order.mixture_schedule import trained_sources
from harness.data.text.corpus import HeldOut, Windows
from harness.data.text.describe_text import DataFacts, check_text_config
from harness.data.text.tokenizers import load_codec
from harness.data.text.training_source import TrainingSource, find_training_source

SEARCHED_TOKENS = 2**27
"""Training tokens up to which sets are compared with them while a run is described: a second or two."""
_NAME = re.compile(r"[\w.+-]+")


def heldout_sets(config: Config) -> dict[str, HeldOut]:
    """Return the rows of each validation set, the same for every run. What was not searched yet is searched.
    Raises UserError for a set that cannot be evaluated."""
    byte_lengths_V = load_codec(config.data).byte_lengths_V if config.evaluation.sets else np.empty(0)
    rows = {}
    for source in find_sets(config):
        with _as_set(source.name):
            heldout_set = _open_set(source, config)
        choice = _choose(heldout_set, config, math.inf)
        assert choice is not None
        tokens_NT = heldout_set.windows[choice.window_N]
        rows[source.name] = HeldOut(tokens_NT, int(byte_lengths_V[tokens_NT[:, 1:]].sum()))
    return rows


def with_sets(facts: DataFacts, config: Config) -> DataFacts:
    """Return the facts of a run's data with its validation sets. Raises UserError. What takes long is not
    done here: its shares are not known yet."""
    sets = {source.name: _describe(source, config) for source in find_sets(config)}
    if not sets:
        return facts
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
    tokens, length = source.open(trained=False), config.data.sequence_length
    windows = Windows(tokens.heldout, length)
    if not len(windows):
        raise _too_small(source, len(tokens.heldout), length)
    return SetWindows(source.name, tokens.key, windows)


def _too_small(source: TrainingSource, tokens: int, length: int) -> UserError:
    return UserError(
        f"{source.where} has {tokens} tokens, less than one window of data.sequence_length={length}. Give "
        "more text or a shorter sequence."
    )


def _choose(heldout_set: SetWindows, config: Config, limit: float) -> WindowChoice | None:
    """Choose the windows that are evaluated. Raises UserError if all stand in the training text."""
    count = min(config.evaluation.tokens // config.data.sequence_length, len(heldout_set.windows))
    ngram = config.evaluation.decontaminate
    choice = choose_windows(heldout_set, count, _training_texts(config) if ngram else (), ngram, limit)
    if choice is not None and not len(choice.window_N):
        where = f"evaluation.sets.{heldout_set.name}.path={config.evaluation.sets[heldout_set.name].path}"
        raise UserError(
            f"{where}: every window stands in the training text (evaluation.decontaminate={ngram} tokens at "
            "a time). Give another set, longer n-grams, or 0 to keep all."
        )
    return choice


def _training_texts(config: Config) -> list[TrainingText]:
    """Return the training tokens of all sources, of weight 0 too: so variants that mix the same sources in
    other ways are evaluated on the same windows."""
    trained = trained_sources(config.data)
    tokens = {source.name: source.open(source.name in trained) for source in check_text_config(config.data)}
    return [TrainingText(name, both.key, both.train) for name, both in tokens.items()]


def _describe(source: TrainingSource, config: Config) -> SetSummary:
    with _as_set(source.name):
        sizes, ratio = source.measure(trained=False), source.tokens_per_byte()
        if not sizes.heldout.documents:
            raise UserError(f"{source.where} is empty: give a file with text in it")
        heldout_set = None if source.needs_build() else _open_set(source, config)
    side, ngram = sizes.heldout, config.evaluation.decontaminate
    available = side.tokens if side.tokens is not None else round(side.bytes * ratio) + side.documents
    available = available if heldout_set is None else len(heldout_set.windows.tokens)
    can_choose = heldout_set is not None and not (ngram and _needs_build(check_text_config(config.data)))
    choice = _choose(heldout_set, config, SEARCHED_TOKENS) if heldout_set is not None and can_choose else None
    length = config.data.sequence_length
    windows = min(config.evaluation.tokens, available) // length if choice is None else len(choice.window_N)
    return SetSummary(
        content=source.content(),
        files=len(source.source.files),
        tokens=windows * length,
        available=available,
        is_estimate=choice is None,
        ngram=ngram,
        left_out_share=choice.left_out_share if choice else None,
        touched_share=choice.touched_share if choice else None,
    )


def _needs_build(sources: Sequence[TrainingSource]) -> bool:
    return any(source.needs_build() for source in sources)
