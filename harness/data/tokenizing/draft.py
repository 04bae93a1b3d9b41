"""Draft of an entry: the folder in which its shards are built, its end as an entry, and its making again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from harness.core.atomic_files import read_checksummed_json
from harness.core.cache.cache_dir import cache_dir
from harness.core.errors import UserError
from harness.core.hashing import hash_json
from harness.data.shards.encoding import Encoding
from harness.data.shards.manifest import (
    STARTS,
    ManifestShard,
    ShardManifest,
    read_manifest,
    remove_manifest,
    shards_folder,
    starts_state,
    write_manifest,
)
from harness.data.shards.shard_file import (
    SPLITS,
    ShardRecord,
    lengths_path,
    read_shard_record,
    record_path,
    tokens_path,
)
from harness.data.shards.tokens_key import remember_sizes, tokens_key
from harness.data.text_sources.leaf_hash import join_leaves
from harness.data.text_sources.source import Source
from harness.data.text_sources.source_hash import FORMAT, remember_file_hash
from harness.data.tokenizing.claims import Job, stream_end
from harness.data.tokens.cached_arrays import file_version


def draft_folder(source: Source, encoding: Encoding) -> Path:
    """Return the folder in which the shards of a source are built."""
    states = [[str(file.resolve()), *file_version(file)[:2]] for file in source.files]
    inputs = [
        FORMAT,
        source.column,
        states,
        encoding.codec.fingerprint,
        encoding.holdout,
        encoding.split.value,
    ]
    return cache_dir("tokens") / f"{hash_json(inputs)}.building"


def reopen_shards(source: Source, encoding: Encoding, key: str, damaged: Sequence[str]) -> None:
    """Make a draft of an entry again, without its damaged shards, so that a build makes only these anew."""
    draft = draft_folder(source, encoding)
    remove_manifest(key)
    if not shards_folder(key).exists():
        return
    shutil.rmtree(draft, ignore_errors=True)
    shards_folder(key).rename(draft)
    for name in damaged:
        record_path(draft, name).unlink(missing_ok=True)


def shard_records(job: Job) -> dict[str, ShardRecord]:
    """Return the records of the shards that are complete, by name, in order."""
    names = sorted(name.removesuffix(".json") for name in job.names() if name.endswith(".json"))
    found = {name: read_shard_record(job.folder, name) for name in names if name[0].isdigit()}
    return {name: record for name, record in found.items() if record is not None}


def finish_draft(job: Job) -> str:
    """Make an entry of complete shards. Return its key."""
    if not job.folder.exists():  # another host has finished it
        return tokens_key(job.source, job.encoding)
    _check_unchanged(job)
    records = shard_records(job)
    for number, digest in _file_hashes(job, records):
        remember_file_hash(job.source.files[number], digest)
    key = tokens_key(job.source, job.encoding)
    _write_starts(job.folder, [*records])
    shards = tuple(
        ManifestShard(
            name,
            record.train,
            record.heldout,
            {split: file_version(tokens_path(job.folder, name, split)) for split in SPLITS},
        )
        for name, record in records.items()
    )
    manifest = ShardManifest(shards, starts_state(job.folder / STARTS))
    remember_sizes(job.source, job.encoding, *(manifest.totals(split) for split in SPLITS))
    for path in job.folder.iterdir():
        if path.suffix == ".lock" or path.name.startswith("."):
            path.unlink()
    if shards_folder(key).exists() and read_manifest(key) is not None:  # of a copy of these files
        shutil.rmtree(job.folder)
        return key
    shutil.rmtree(shards_folder(key), ignore_errors=True)
    job.folder.rename(shards_folder(key))
    write_manifest(key, manifest)
    return key


def _check_unchanged(job: Job) -> None:
    if draft_folder(job.source, job.encoding) != job.folder:
        shutil.rmtree(job.folder)
        raise UserError(
            f"{job.source.key}.path={job.source.path} changed while it was read. Start again when it is "
            "complete."
        )


def _file_hashes(job: Job, records: dict[str, ShardRecord]) -> Iterator[tuple[int, str]]:
    """Yield the number and the hash of each file, from its leaves."""
    leaves = [leaf for record in records.values() for leaf in record.leaves]
    for file in job.plan.streams:
        end = read_checksummed_json(job.folder / stream_end(file))
        assert end is not None
        leaves += [tuple(leaf) for leaf in end["leaves"]]
    by_file: dict[int, dict[int, str]] = {}
    for file, leaf, digest in leaves:
        by_file.setdefault(file, {})[leaf] = digest
    for file, digests in by_file.items():
        yield file, join_leaves([digests[leaf] for leaf in sorted(digests)])


def _write_starts(folder: Path, names: list[str]) -> None:
    """Write the place of the first token of each training document, from their lengths."""
    total = 0
    with (folder / STARTS).open("wb") as file:
        for name in names:
            ends_D = total + np.cumsum(np.fromfile(lengths_path(folder, name), np.uint32), dtype=np.int64)
            if len(ends_D):
                np.concatenate([[total], ends_D[:-1]]).astype(np.int64).tofile(file)
                total = int(ends_D[-1])
        os.fsync(file.fileno())
