"""ShardManifest of the shards of a source: what a reader compares when it opens them.

The checksum of a shard is compared when it was built, by `harness verify --data`, and where a file is not the
one that was built: an opening compares size, time and inode of each file, and takes no lock.
"""

from __future__ import annotations

import dataclasses
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.core.cache.cache_dir import cache_dir
from harness.core.cache.cache_entries import CacheEntry
from harness.data.shards.shard_file import SPLITS, SplitRecord, is_intact, shard_tokens
from harness.data.tokens.cached_arrays import file_version
from harness.data.tokens.token_sequence import TokenFile, TokenSequence
from harness.data.tokens.tokens import Tokens

STARTS = "train.starts"
"""File with the place of the first token of each training document, int64."""


@dataclass(frozen=True)
class ManifestShard:
    """A shard of a complete source."""

    name: str
    train: SplitRecord
    heldout: SplitRecord
    states: dict[str, list[int]]
    """Size, time in ns and inode of the file of each split, as it was built."""


@dataclass(frozen=True)
class ShardManifest:
    """Shards of a complete source, in the order of its documents."""

    shards: tuple[ManifestShard, ...]
    starts: list[int]
    """Size, time in ns, inode and CRC-32 of the file of the documents' places."""

    def totals(self, split: str) -> SplitRecord:
        """Return the sums of one split over the shards, without a checksum."""
        records = [getattr(shard, split) for shard in self.shards]
        documents, num_bytes, tokens = (
            sum(getattr(record, name) for record in records) for name in ("documents", "bytes", "tokens")
        )
        return SplitRecord(documents, num_bytes, tokens)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ShardManifest:
        """Return the manifest of plain data."""
        return cls(tuple(map(_parse_shard, content["shards"])), content["starts"])


def _parse_shard(content: Mapping[str, Any]) -> ManifestShard:
    train, heldout = (SplitRecord(**content[split]) for split in SPLITS)
    return ManifestShard(content["name"], train, heldout, content["states"])


def shards_folder(key: str) -> Path:
    """Return the folder of the shards of a source. Raises UserError if the cache cannot be used."""
    return cache_dir("tokens") / key


def read_manifest(key: str) -> ShardManifest | None:
    """Return the manifest of the tokens of this key; None if they were not built here."""
    content = _entry(key).read_json()
    return None if content is None else ShardManifest.from_json(content)


def write_manifest(key: str, manifest: ShardManifest) -> None:
    """Write the manifest of the tokens of this key."""
    _entry(key).write_json(dataclasses.asdict(manifest))


def remove_manifest(key: str) -> None:
    """Remove the manifest, so that the shards count as not there."""
    _entry(key).remove()


def damaged_shards(key: str, manifest: ShardManifest, dtype: np.dtype) -> list[str]:
    """Return the names of the shards that are not as they were built, and STARTS if that file is not. A file
    with another time or inode is read: a copy of the cache is as good."""
    damaged, is_new = list[str](), False
    starts = shards_folder(key) / STARTS
    if not starts.exists() or file_version(starts) != manifest.starts[:3]:
        is_new = True
        if not are_starts_intact(key, manifest):
            damaged.append(STARTS)
    for shard in manifest.shards:
        for file, record, state in _files(key, shard, dtype):
            try:
                is_same = file_version(file.path) == state
            except FileNotFoundError:
                is_same = False
            if is_same:
                continue
            if not is_intact(file, record):
                damaged.append(shard.name)
                break
            is_new = True
    if is_new and not damaged:
        write_manifest(key, with_present_states(key, manifest))
    return damaged


def with_present_states(key: str, manifest: ShardManifest) -> ShardManifest:
    """Return the manifest with the states in which the files are now."""
    folder = shards_folder(key)
    shards = [
        dataclasses.replace(
            shard, states={split: file_version(folder / f"{shard.name}.{split}.bin") for split in SPLITS}
        )
        for shard in manifest.shards
    ]
    return ShardManifest(tuple(shards), starts_state(folder / STARTS))


def are_starts_intact(key: str, manifest: ShardManifest) -> bool:
    """Return whether every byte of the places of documents is what was written."""
    file = shards_folder(key) / STARTS
    return file.exists() and starts_state(file)[-1] == manifest.starts[-1]


def starts_state(file: Path) -> list[int]:
    """Return size, time in ns, inode and CRC-32 of the file of the documents' places."""
    crc = 0
    with file.open("rb", buffering=0) as stream:
        while part := stream.read(2**22):
            crc = zlib.crc32(part, crc)
    return [*file_version(file), crc]


def open_shards(key: str, manifest: ShardManifest, dtype: np.dtype) -> Tokens:
    """Return the tokens of shards that were compared."""
    folder = shards_folder(key)
    os.utime(folder)  # the age of an entry counts from its last use
    train, heldout = (
        TokenSequence.of_parts(
            [
                shard_tokens(folder, shard.name, split, dtype, getattr(shard, split).tokens)
                for shard in manifest.shards
            ]
        )
        for split in SPLITS
    )
    starts = folder / STARTS
    is_empty = not starts.stat().st_size  # an empty file cannot be mapped
    starts_D = np.empty(0, np.int64) if is_empty else np.memmap(starts, np.int64, mode="r")
    return Tokens(key, train, heldout, starts_D)


def _files(
    key: str, shard: ManifestShard, dtype: np.dtype
) -> Iterator[tuple[TokenFile, SplitRecord, list[int]]]:
    folder = shards_folder(key)
    for split in SPLITS:
        record = getattr(shard, split)
        yield shard_tokens(folder, shard.name, split, dtype, record.tokens), record, shard.states[split]


def _entry(key: str) -> CacheEntry:
    return CacheEntry("surveys", "manifest", key)
