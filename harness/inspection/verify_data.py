"""Comparison of every byte of a run's data with what was recorded when they were read: the files of each
source, and the shards of their tokens."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context

from harness.config.schema.run import Config
from harness.data.codecs.codec import Codec
from harness.data.formats.file_index import PARALLEL_BYTES, fresh_digest
from harness.data.formats.open_token_files import digests_of
from harness.data.formats.token_sources import TokenSource
from harness.data.shards.encoding import Encoding
from harness.data.shards.manifest import read_manifest, shards_folder
from harness.data.shards.tokens_key import tokens_key
from harness.data.shards.verify_shards import find_damage, shard_bytes_of
from harness.data.text.source_summary import DIGITS
from harness.data.text.training_source import TextSource, TokenFilesSource
from harness.data.text_sources.leaf_hash import join_leaves, leaf_hash, num_leaves
from harness.data.text_sources.source import Source
from harness.data.text_sources.source_hash import file_hash, is_hashed
from harness.data.tokenizing.draft import reopen_shards
from harness.worker.tokenize_sources import NamedSource, find_sources

Show = Callable[[str], None]


@dataclass(frozen=True)
class DataRecord:
    """Records about the data of a config."""

    config: Config
    run: str = ""
    """Name of the run that recorded `digests`; empty for a config of no run."""
    digests: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """First digits of the hash of each file, by source and path in it."""


@dataclass
class DataCheck:
    """Comparison of one source."""

    name: str
    path: str
    files: int = 0
    """Number of files that were compared."""
    shards: int = 0
    """Number of shards that were compared."""
    bytes: int = 0
    """Bytes of both."""
    problems: list[str] = field(default_factory=list)
    """Sentences about damage, each with the way out."""
    notes: list[str] = field(default_factory=list)
    """Sentences about what could not be compared."""


def verify_data(records: Sequence[DataRecord], show: Show) -> list[DataCheck]:
    """Compare the data of all records, on all cores. A damaged shard is removed, so that the next start
    builds it again. Raises UserError for sources that cannot be found."""
    return [
        _SourceCheck(record, entry, show).run()
        for record in records
        for entry in find_sources([record.config])
    ]


@dataclass
class _SourceCheck:
    """Comparison of a source that is under way."""

    record: DataRecord
    entry: NamedSource
    show: Show
    check: DataCheck = field(init=False)

    def run(self) -> DataCheck:
        """Compare whatever kind of source it is."""
        source = self.entry.source
        self.check = DataCheck(source.name, source.source.path)
        if isinstance(source, TextSource):
            self._check_text(source)
        elif isinstance(source, TokenFilesSource):
            self._check_token_files(source)
        return self.check

    def _check_text(self, text: TextSource) -> None:
        encoding = text.encoding
        for part in text.parts:
            if part.remote is not None or not is_hashed(part):
                self.check.notes.append(f"{part.path} is not read yet, so nothing is recorded of it")
                continue
            self._check_files(part)
            if text.validation is None:
                encoding = encoding.with_split(text.measure(self.entry.trained).split)
            self._check_shards(part, encoding)

    def _check_files(self, source: Source) -> None:
        counts = {file: num_leaves(file.stat().st_size) for file in source.files}
        leaves = [(file, leaf) for file, count in counts.items() for leaf in range(count)]
        meter = _ShareMeter(f"comparing the files of {source.name}", len(leaves), self.show)
        with ThreadPoolExecutor(_cores()) as pool:
            hashes = iter(_in_parallel(pool, leaf_hash, leaves, meter))
        for file, count in counts.items():
            digest = join_leaves([*itertools.islice(hashes, count)])
            self._compare(file.relative_to(source.folder).as_posix(), digest, file_hash(file))
            self.check.bytes += file.stat().st_size
        self.check.files += len(counts)

    def _check_shards(self, source: Source, encoding: Encoding) -> None:
        key, codec = tokens_key(source, encoding), encoding.codec
        manifest = read_manifest(key)
        if manifest is None:
            self.check.notes.append(f"{source.path} is not tokenised yet, so there are no shards")
            return
        num_bytes = shard_bytes_of(manifest, codec)
        meter = _ShareMeter(f"comparing the shards of {source.name}", num_bytes, self.show)
        names = find_damage(key, manifest, codec, meter.add)
        self.check.shards += len(manifest.shards)
        self.check.bytes += num_bytes
        if names:
            self.check.problems.append(
                f"{shards_folder(key)}: {', '.join(names)} damaged and removed: the next start, or "
                "`harness tokenize`, builds that again"
            )
            reopen_shards(source, encoding, key, names)

    def _check_token_files(self, source: TokenFilesSource) -> None:
        if source.needs_build():
            self.check.notes.append(f"{self.check.path} is not read yet, so nothing is recorded of it")
            return
        for part in (source.source, source.source.validation):
            if part is not None:
                self._check_files_of_tokens(part, source.codec)

    def _check_files_of_tokens(self, source: TokenSource, codec: Codec) -> None:
        tasks = source.index_tasks(codec.end_token)
        meter = _ShareMeter(f"comparing the files of {source.name}", len(tasks), self.show)
        with _pool_for_tokens(len(tasks), sum(task.file.stat().st_size for task in tasks)) as pool:
            digests = _in_parallel(pool, fresh_digest, [(task,) for task in tasks], meter)
        recorded = digests_of(source, codec)
        for task, digest in zip(tasks, digests, strict=True):
            name = task.file.relative_to(source.folder).as_posix()
            self._compare(name, digest, recorded[name])
            self.check.bytes += task.file.stat().st_size
        self.check.files += len(tasks)

    def _compare(self, name: str, digest: str, recorded: str) -> None:
        """Compare a file with the hash of its size and time, and with what the run recorded."""
        place = f"{self.entry.source.where}: {name}"
        of_run = self.record.digests.get(self.check.name, {}).get(name)
        if digest != recorded:
            self.check.problems.append(
                f"{place} is not what was read, though its size and time are the same: restore it, or have "
                "it read anew with `touch`"
            )
        elif of_run is not None and digest[:DIGITS] != of_run:
            self.check.problems.append(f"{place} is not what {self.record.run} has read: restore it")


@dataclass
class _ShareMeter:
    """Meter of what was compared; threads may share it."""

    activity: str
    total: int
    show: Show
    amount: int = 0

    def add(self, number: int) -> None:
        self.amount += number
        self.show(f"{self.activity}: {min(1.0, self.amount / max(1, self.total)):.0%}")


def _in_parallel(
    pool: Executor, function: Callable[..., str], items: Sequence[tuple], meter: _ShareMeter
) -> list[str]:
    """Return what a function returns for each item, in their order."""
    futures = [pool.submit(function, *item) for item in items]
    try:
        for future in as_completed(futures):
            future.result()
            meter.add(1)
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    return [future.result() for future in futures]


def _pool_for_tokens(count: int, num_bytes: int) -> Executor:
    """Return a pool for hashes of documents: processes, unless these take longer to start than to work."""
    if num_bytes < PARALLEL_BYTES:
        return ThreadPoolExecutor(1)
    return ProcessPoolExecutor(min(_cores(), count), get_context("spawn"))


def _cores() -> int:
    return len(os.sched_getaffinity(0))
