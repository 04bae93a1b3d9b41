"""Lines that name the data of a sweep: files, documents, tokens and passes of each source, packing and order,
and the rows of a vocabulary that is padded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from harness.config.schema.data import DataConfig, Order, Packing
from harness.core.errors import printable
from harness.core.number_format import format_count
from harness.launcher.runs import Run
from harness.records.run.provenance import SetFacts, SourceFacts

FEW_PASSES = 1e-3
"""Passes below which a share of a source is too small to be worth its digits."""
WORTHWHILE_PASSES = 4
"""Passes over a text up to which its tokens teach about as much as new ones (arXiv:2305.16264)."""


def data_lines(runs: Sequence[Run]) -> list[str]:
    """Return a line for each source, and one for each that is read very often. Runs that read a source in
    different ways are given as a range. Further lines tell packing and order that are not the defaults, and
    how far a vocabulary is padded."""
    readers: dict[str, list[Run]] = {}
    for run in runs:
        for name in run.facts.sources:
            readers.setdefault(name, []).append(run)
    lines = [f"  data {printable(name)}: {_describe(name, members)}" for name, members in readers.items()]
    sets = [*_sets(runs), *_mostly_known_sets(runs)]
    return [*lines, *sets, *_many_passes(readers), *_row_lines(runs), *_padded_vocabularies(runs)]


def _sets(runs: Sequence[Run]) -> list[str]:
    """Return a line for each validation set, or for each form in which runs evaluate it."""
    lines = [
        f"  set {printable(name)}: {_describe_set(facts, run)}"
        for run in runs
        for name, facts in run.facts.sets.items()
    ]
    return [*dict.fromkeys(lines)]


def _mostly_known_sets(runs: Sequence[Run]) -> Iterator[str]:
    """Yield a sentence for each set of which more than half is left out: short n-grams stand everywhere."""
    facts_by_name = {name: facts for run in runs for name, facts in run.facts.sets.items()}
    for name, facts in facts_by_name.items():
        if (facts.left_out_share or 0.0) > 0.5:
            yield (
                f"  more than half of set {printable(name)} is left out. If its tokens are as short as "
                f"bytes, n-grams of {facts.ngram} stand in any text: set evaluation.decontaminate=50."
            )


def _describe_set(facts: SetFacts, run: Run) -> str:
    max_tokens, length = run.config.evaluation.tokens, run.config.data.sequence_length
    about = "about " if facts.is_estimate else ""
    fewer = (
        f", fewer than evaluation.tokens={max_tokens}" if facts.tokens < max_tokens // length * length else ""
    )
    tokens = f"{about}{facts.tokens:,} of {format_count(facts.available)} tokens{fewer}"
    return f"{with_plural(facts.files, 'file')}, {tokens}; {facts.contamination}"


def _many_passes(readers: Mapping[str, Sequence[Run]]) -> Iterator[str]:
    """Yield a sentence for each text that a run reads more often than pays."""
    for name, runs in readers.items():
        run = max(runs, key=lambda run: _passes(run, name))
        passes, source = _passes(run, name), run.facts.sources[name]
        if passes > WORTHWHILE_PASSES and not run.facts.has_images:
            available = f"{'about ' if source.is_sampled else ''}{format_count(source.train_tokens)}"
            yield (
                f"  {printable(name)} is read {_number(passes)} times: it has {available} training "
                f"tokens, and scale.tokens={run.config.scale.tokens}. After {WORTHWHILE_PASSES} passes "
                "tokens teach less each time: add text, or lower scale.tokens."
            )


def _row_lines(runs: Sequence[Run]) -> list[str]:
    """Return a line for each way of packing and of ordering examples that is not the default."""
    lines = dict[str, None]()
    for run in runs:
        lines |= dict.fromkeys([*_packing_text(run.config.data), *_order_text(run.config.data)])
    return [*lines]


def _packing_text(data: DataConfig) -> Iterator[str]:
    if data.packing is Packing.best_fit:
        yield (
            f"  packing: documents stay whole up to data.sequence_length={data.sequence_length}; "
            "empty places are no target, and count as tokens read"
        )


def _order_text(data: DataConfig) -> Iterator[str]:
    if data.order is Order.blocks:
        yield f"  order: blocks of {data.order_block:,} neighbouring examples, shuffled and mixed"
    elif data.order is Order.length:
        yield f"  order: short documents first, of what data.horizon={data.horizon} tokens read"


def _padded_vocabularies(runs: Sequence[Run]) -> list[str]:
    sizes = {
        (run.facts.shape["vocabulary"], run.facts.table_rows, run.config.model.vocabulary_multiple)
        for run in runs
        if run.facts.table_rows > run.facts.shape["vocabulary"]
    }
    return [
        f"  vocabulary: {tokens:,} tokens in {rows:,} rows of embedding and head "
        f"(model.vocabulary_multiple={multiple}); the others are never predicted or trained"
        for tokens, rows, multiple in sorted(sizes)
    ]


def _describe(name: str, runs: Sequence[Run]) -> str:
    sources = [run.facts.sources[name] for run in runs]
    source, is_text = sources[0], not runs[0].facts.has_images
    texts = [
        with_plural(source.files, "file"),
        *_documents_text(source, "document" if is_text else "image"),
        _tokens_text(sources, "tokens" if is_text else "patches"),
        _passes_text([_passes(run, name) for run in runs]),
    ]
    held_out = _heldout_text(source, runs[0].config.data.holdout, "documents" if is_text else "images")
    skipped = f"; not read: {printable(', '.join(source.skipped))}" if source.skipped else ""
    return f"{', '.join(texts)}; held out: {held_out}{skipped}{_packed_text(sources)}"


def _packed_text(sources: Sequence[SourceFacts]) -> str:
    """Return what packing makes of a source; empty if no run packs it, or it is not tokenised yet."""
    for source in sources:
        if source.packed_rows is not None and source.padding is not None:
            return (
                f"; packed: {source.packed_rows:,} rows, of which {100 * source.padding:.2g} % stays empty; "
                f"{with_plural(source.cut_documents or 0, 'document')} longer than a row cut"
            )
    return ""


def _documents_text(source: SourceFacts, word: str) -> Iterator[str]:
    """Yield the number of documents, unless nothing tells where they begin."""
    if source.is_sampled and source.documents > 1:
        yield f"about {format_count(source.documents)} {word}s"
    elif source.split != "files":
        yield with_plural(source.documents, word)


def with_plural(count: int, word: str) -> str:
    """Return text such as `1 run` or `1,000 runs`."""
    return f"{count:,} {word}{'s' * (count != 1)}"


def _heldout_text(source: SourceFacts, asked_share: float, examples: str) -> str:
    share = f"{'about ' if source.is_sampled else ''}{100 * source.heldout_share:.2g} %"
    if source.split == "validation":
        return f"its validation files, {share} of all"
    if source.split == "files":
        return f"{share}, in whole files, since nothing tells where documents begin"
    if source.split == "tails":
        return f"the last {share} of {'the document' if source.documents == 1 else 'each document'}"
    if asked_share / 2 <= source.heldout_share <= 2 * asked_share:
        return share
    return f"{share}, since {examples} stay whole (data.holdout={asked_share})"


def _tokens_text(sources: Sequence[SourceFacts], unit: str) -> str:
    counts = [source.train_tokens for source in sources]
    is_sampled = any(source.is_sampled for source in sources)
    about = "about " if is_sampled or any(source.is_estimate for source in sources) else ""
    amount = f"{about}{_range_text(format_count(min(counts)), format_count(max(counts)))} training {unit}"
    return f"{amount} (from a sample: not tokenised yet)" if is_sampled else amount


def _passes(run: Run, name: str) -> float:
    """Return how often a run reads a source; 0 for one that is only evaluated."""
    draws, source = run.facts.draws.get(name, 0), run.facts.sources[name]
    if source.packed_rows is not None:
        return draws / source.packed_rows
    return draws * run.config.data.sequence_length / max(1, source.train_tokens)


def _passes_text(passes: Sequence[float]) -> str:
    if not max(passes):
        return "only evaluated"
    if max(passes) < FEW_PASSES:
        return f"read less than {FEW_PASSES:g} times"
    return f"read {_range_text(_number(min(passes)), _number(max(passes)))} times"


def _number(passes: float) -> str:
    """Return two digits, and all of them from a hundred on."""
    return f"{passes:,.0f}" if passes >= 99.5 else f"{passes:.2g}"


def _range_text(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"
