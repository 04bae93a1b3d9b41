"""Measuring of a source: counted when it was tokenised, counted at once if it is small, else estimated."""

from __future__ import annotations

from collections.abc import Mapping

from harness.core.progress.report import report
from harness.data.shards.encoding import Encoding
from harness.data.shards.manifest import read_manifest
from harness.data.shards.shard_file import SPLITS, SplitRecord
from harness.data.shards.tokens_key import survey_entry, tokens_key
from harness.data.text_sources.source import Source
from harness.data.text_sources.source_hash import SMALL_BYTES, is_hashed, source_bytes
from harness.data.text_sources.source_sample import sample_source
from harness.data.text_sources.source_size import SourceSizes, SplitSize
from harness.data.text_sources.split import Split, divide


def measure_source(source: Source, encoding: Encoding, trained: bool) -> SourceSizes:
    """Return the split and the sizes of a source. `encoding` names the first choice of a split. `trained`:
    the source is not only evaluated, so it needs training text too. Raises UserError for a bad document."""
    if not is_hashed(source):
        return _estimate(source, encoding)
    sizes = _measure(source, encoding)
    lacks_heldout = not sizes.heldout.documents
    lacks_train = trained and not sizes.train.documents
    if (lacks_heldout or lacks_train) and sizes.documents and 0 < encoding.holdout < 1:
        return _measure(source, encoding.with_split(Split.tails))
    return sizes


def _measure(source: Source, encoding: Encoding) -> SourceSizes:
    """Return what was counted when the source was tokenised, or else what a survey of its text counts."""
    manifest = read_manifest(tokens_key(source, encoding))
    if manifest is not None:
        train, heldout = map(manifest.totals, SPLITS)
        return SourceSizes(_size(train), _size(heldout), encoding.split)
    entry = survey_entry(source, encoding.holdout, encoding.split)
    survey = entry.read_json()
    if survey is None:
        if source_bytes(source) > SMALL_BYTES:
            return _estimate(source, encoding)
        survey = _count(source, encoding)
        entry.write_json(survey)
    return SourceSizes(SplitSize(**survey["train"]), SplitSize(**survey["heldout"]), encoding.split)


def _size(total: SplitRecord) -> SplitSize:
    return SplitSize(total.documents, total.bytes, total.tokens)


def _count(source: Source, encoding: Encoding) -> Mapping[str, Mapping[str, int]]:
    counts = {True: [0, 0], False: [0, 0]}
    for document in source.documents():
        report(f"reading {source.name}")
        for held_out, text in divide(document, encoding.holdout, encoding.split):
            counts[held_out][0] += 1
            counts[held_out][1] += len(text.encode())
    sides = {"train": counts[False], "heldout": counts[True]}
    return {name: {"documents": documents, "bytes": size} for name, (documents, size) in sides.items()}


def _estimate(source: Source, encoding: Encoding) -> SourceSizes:
    sample = sample_source(source)
    heldout_documents = round(encoding.holdout * sample.documents)
    heldout_bytes = round(encoding.holdout * sample.text_bytes)
    train = SplitSize(sample.documents - heldout_documents, sample.text_bytes - heldout_bytes)
    return SourceSizes(train, SplitSize(heldout_documents, heldout_bytes), encoding.split, is_sampled=True)
