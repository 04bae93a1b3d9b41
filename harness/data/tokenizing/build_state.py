"""State of a build as the folder of its shards shows it, whoever builds them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from harness.data.shards.encoding import Encoding
from harness.data.shards.manifest import read_manifest
from harness.data.shards.shard_file import SPLITS, SplitRecord, read_shard_record
from harness.data.shards.tokens_key import tokens_key
from harness.data.text_sources.source import Source
from harness.data.text_sources.source_hash import is_hashed
from harness.data.tokenizing.draft import draft_folder


@dataclass(frozen=True)
class BuiltAmount:
    """Amount of a source that is tokenised."""

    text_bytes: int = 0
    """UTF-8 bytes of text."""
    tokens: int = 0

    def __add__(self, other: BuiltAmount) -> BuiltAmount:
        """Return the sum of two sources."""
        return BuiltAmount(self.text_bytes + other.text_bytes, self.tokens + other.tokens)


@dataclass
class BuildState:
    """Reader of the state of a source. It reads each record once."""

    source: Source
    encoding: Encoding
    _by_shard: dict[str, BuiltAmount] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._draft = draft_folder(self.source, self.encoding)

    def read(self) -> BuiltAmount:
        """Return the amount that is tokenised now."""
        try:
            names = [entry.name.removesuffix(".json") for entry in os.scandir(self._draft)]
        except FileNotFoundError:
            return self._finished()
        for name in names:
            is_new = name[0].isdigit() and "." not in name and name not in self._by_shard
            if is_new and (record := read_shard_record(self._draft, name)) is not None:
                self._by_shard[name] = _amount(record.train, record.heldout)
        return sum((self._by_shard[name] for name in names if name in self._by_shard), BuiltAmount())

    def _finished(self) -> BuiltAmount:
        """Return the amount of a source without a folder of unfinished shards: all, or nothing."""
        manifest = read_manifest(tokens_key(self.source, self.encoding)) if is_hashed(self.source) else None
        return BuiltAmount() if manifest is None else _amount(*map(manifest.totals, SPLITS))


def _amount(train: SplitRecord, heldout: SplitRecord) -> BuiltAmount:
    return BuiltAmount(train.bytes + heldout.bytes, train.tokens + heldout.tokens)
