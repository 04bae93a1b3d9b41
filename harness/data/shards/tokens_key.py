"""Key of the tokens of a source, and the sizes of its splits that are remembered under it."""

from __future__ import annotations

import dataclasses
from typing import Any

from harness.core.cache.cache_entries import CacheEntry
from harness.core.hashing import hash_json
from harness.data.shards.encoding import Encoding
from harness.data.shards.shard_file import SplitRecord
from harness.data.text_sources.source import Source
from harness.data.text_sources.source_hash import content_hash
from harness.data.text_sources.split import Split


def tokens_key(source: Source, encoding: Encoding) -> str:
    """Return the hash of all that the tokens of a source depend on. Its files are read unless their hashes
    are known."""
    way = [] if encoding.split is Split.documents else [encoding.split.value]
    return hash_json([content_hash(source), encoding.codec.fingerprint, encoding.holdout, *way])


def survey_entry(source: Source, holdout: float, split: Split) -> CacheEntry:
    """Return the entry of the documents and bytes of both splits, which no tokenizer changes."""
    key = [content_hash(source), holdout, *([split.value] if split is not Split.documents else [])]
    return CacheEntry("surveys", "survey", key)


def remember_sizes(source: Source, encoding: Encoding, train: SplitRecord, heldout: SplitRecord) -> None:
    """Keep the documents and bytes of both splits of a source that was tokenised."""
    sides = {name: dataclasses.asdict(side) for name, side in (("train", train), ("heldout", heldout))}
    content: dict[str, Any] = {
        name: {key: side[key] for key in ("documents", "bytes")} for name, side in sides.items()
    }
    survey_entry(source, encoding.holdout, encoding.split).write_json(content)
