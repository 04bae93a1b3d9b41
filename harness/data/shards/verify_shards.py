"""Comparison of every byte of the shards of a source with what was recorded when they were built."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed

from harness.data.codecs.codec import Codec
from harness.data.shards.manifest import (
    STARTS,
    ManifestShard,
    ShardManifest,
    are_starts_intact,
    shards_folder,
)
from harness.data.shards.shard_file import SPLITS, is_intact, shard_tokens

Advance = Callable[[int], None]
"""Receiver of the number of bytes that were compared since the last call."""


def find_damage(key: str, manifest: ShardManifest, codec: Codec, advance: Advance) -> list[str]:
    """Return the names of the shards that are not as they were built, or that of the file of the documents'
    places if only that is damaged. Reads all, on all cores."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        checks = {pool.submit(_check_shard, key, shard, codec, advance): shard for shard in manifest.shards}
        try:
            names = [checks[check].name for check in as_completed(checks) if not check.result()]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if not names and not are_starts_intact(key, manifest):
        return [STARTS]
    return sorted(names)


def shard_bytes_of(manifest: ShardManifest, codec: Codec) -> int:
    """Return the bytes of all tokens of a manifest."""
    return codec.dtype.itemsize * sum(manifest.totals(split).tokens for split in SPLITS)


def _check_shard(key: str, shard: ManifestShard, codec: Codec, advance: Advance) -> bool:
    """Return whether both splits of a shard are as they were built."""
    is_same = True
    for split in SPLITS:
        record = getattr(shard, split)
        file = shard_tokens(shards_folder(key), shard.name, split, codec.dtype, record.tokens)
        is_same = is_same and is_intact(file, record)
        advance(record.tokens * codec.dtype.itemsize)
    return is_same
