"""Comparison of every byte of the shards of a source with what was recorded when they were built."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed

import numpy as np

from harness.data.codecs.codec import Codec
from harness.data.shards.manifest import STARTS, ManifestShard, ShardManifest, open_shards, shards_folder
from harness.data.shards.shard_file import SPLITS, is_intact, shard_tokens

STARTS_AT_ONCE = 2**16
"""Documents whose places are compared at a time."""

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
    if not names and not _starts_match(key, manifest, codec):
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


def _starts_match(key: str, manifest: ShardManifest, codec: Codec) -> bool:
    """Return whether the places of the training documents rise from 0, one for each document, and each
    follows a token that ends one."""
    file, total = shards_folder(key) / STARTS, manifest.totals(SPLITS[0])
    if not file.exists() or file.stat().st_size != 8 * total.documents:
        return False
    if not total.documents:
        return True
    train = open_shards(key, manifest, codec.dtype).train
    start_D, last = np.memmap(file, np.int64, mode="r"), -1
    for low in range(0, len(start_D), STARTS_AT_ONCE):
        part_D = np.asarray(start_D[low : low + STARTS_AT_ONCE])
        if part_D[0] <= last or (np.diff(part_D) <= 0).any() or part_D[-1] >= len(train):
            return False
        last, end_D = int(part_D[-1]), part_D[part_D > 0] - 1
        if (train.windows(end_D, 1)[:, 0] != codec.end_token).any():
            return False
    return start_D[0] == 0
