"""Construction of all shards of a source: helper processes, progress, and the end that makes them an entry.

Shards are built in a folder named by the state of the files, since the hash of their content is known only
when all is read. A killed build is continued there. On one host one process leads; hosts with one cache
folder share the pieces.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from harness.core.atomic_files import read_checksummed_json
from harness.core.cache.cache_dir import cache_dir
from harness.core.errors import UserError
from harness.core.file_locks import host_dir
from harness.core.hashing import hash_json
from harness.core.host_memory import free_memory
from harness.core.number_format import format_bytes, format_clock
from harness.core.progress.report import report
from harness.core.progress.waiting import hold_lock
from harness.data.shards.claims import WAY_OUT, Job, build_pieces, stream_end
from harness.data.shards.content_hash import join_leaves
from harness.data.shards.disk_room import as_full_disk, check_room, shard_bytes
from harness.data.shards.encode_piece import Encoding
from harness.data.shards.job_file import ERROR, write_job
from harness.data.shards.manifest import (
    STARTS,
    Manifest,
    ManifestShard,
    file_state,
    read_manifest,
    remove_manifest,
    shards_folder,
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
from harness.data.text.source_hash import FORMAT, is_hashed, remember_file_hash
from harness.data.text.sources import Source

PROCESS_BYTES = 2**28
"""Memory that a helper process needs."""
POLL_SECONDS = 0.25
ENVIRONMENT = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
"""One thread for each helper process: they share the cores by pieces."""


@dataclass(frozen=True)
class BuildProgress:
    """State of a build."""

    source: str
    done_bytes: int
    """Bytes of text that are tokenised."""
    total_bytes: int
    """Bytes of text of the source; an estimate for compressed files and tables."""
    bytes_per_second: float

    def __str__(self) -> str:
        """Return the state in words."""
        text = (
            f"tokenising {self.source}: {format_bytes(self.done_bytes)} of {format_bytes(self.total_bytes)}"
        )
        if not self.bytes_per_second:
            return text
        left = max(0, self.total_bytes - self.done_bytes) / self.bytes_per_second
        return f"{text}, {format_bytes(self.bytes_per_second)}/s, {format_clock(left)} left"


@dataclass(frozen=True)
class BuildLimits:
    """Resources of a build on this host."""

    processes: int | None = None
    """Number of helper processes; None: the cores, as far as memory allows."""
    memory: float | None = None
    """Bytes of memory of all helper processes; None: half of what is free."""
    show: Callable[[BuildProgress], None] = lambda progress: report(str(progress))
    """Receiver of the progress, several times a second."""
    joins: bool = False
    """Build beside the other processes of this host that build, as tasks of an array do, instead of waiting
    for the one that leads."""

    def count(self) -> int:
        """Return the number of helper processes."""
        memory = self.memory if self.memory is not None else free_memory() / 2
        return max(1, min(self.processes or len(os.sched_getaffinity(0)), int(memory // PROCESS_BYTES)))


def draft_folder(source: Source, encoding: Encoding) -> Path:
    """Return the folder in which the shards of a source are built."""
    states = [[str(file.resolve()), *file_state(file)[:2]] for file in source.files]
    inputs = [
        FORMAT,
        source.column,
        states,
        encoding.codec.fingerprint,
        encoding.holdout,
        encoding.split.value,
    ]
    return cache_dir("tokens") / f"{hash_json(inputs)}.building"


def build_shards(source: Source, encoding: Encoding, text_bytes: int, limits: BuildLimits) -> str:
    """Build the shards that are not there yet. Return the key of the tokens. `text_bytes`: those of the
    source, for the progress. Raises UserError for bad text, and for files that change meanwhile."""
    draft, needed = draft_folder(source, encoding), shard_bytes(source, encoding, text_bytes)
    job = Job(source, encoding, draft, limits.count())
    leads = hold_lock(host_dir() / f"{draft.stem}.lock", f"tokenises {source.name}", WAY_OUT)
    with nullcontext() if limits.joins else leads, as_full_disk(source, draft, needed):
        if (key := _begin(job)) is not None:
            return key
        check_room(source, draft, needed)
        before = sum(record.train.bytes + record.heldout.bytes for record in _records(job).values())
        meter = _Meter(source.name, text_bytes, limits.show, before=before)
        if job.processes == 1 or len(job.plan.pieces) + 2 * len(job.plan.streams) <= 1:
            build_pieces(job, meter.add)
        else:
            _build_with_helpers(job, meter)
        with _draft_lock(job):
            return _finish(job)


def _begin(job: Job) -> str | None:
    """Make the folder of the shards. If another process has finished them meanwhile, return their key."""
    with _draft_lock(job):
        if is_hashed(job.source) and read_manifest(key := tokens_key(job.source, job.encoding)) is not None:
            return key
        job.folder.mkdir(exist_ok=True)
    return None


def _draft_lock(job: Job) -> AbstractContextManager[None]:
    """Return the lock under which the folder of the shards appears, and becomes an entry."""
    return hold_lock(job.folder.with_suffix(".lock"), f"finishes {job.source.name}", WAY_OUT)


@dataclass
class _Meter:
    """Meter of the text that this build has encoded."""

    source: str
    total: int
    show: Callable[[BuildProgress], None]
    done: int = 0
    start: float = field(default_factory=time.monotonic)
    before: int = 0
    """Bytes that were there when the build began."""

    def add(self, characters: int) -> None:
        """Count characters, and show how far it is."""
        self.show_done(self.done + characters)

    def show_done(self, characters: int) -> None:
        """Show how far it is after so many characters in all."""
        self.done = characters
        seconds = max(1e-3, time.monotonic() - self.start)
        done = min(self.total, self.before + self.done)
        self.show(BuildProgress(self.source, done, self.total, self.done / seconds))


def _build_with_helpers(job: Job, meter: _Meter) -> None:
    spec = job.folder / "job.json"
    write_job(spec, job)
    with _helpers(spec, job.processes) as (processes, errors, counts):
        while any(process.poll() is None for process in processes) and not errors:
            meter.show_done(sum(counts))
            time.sleep(POLL_SECONDS)
    if errors:
        raise UserError(errors[0])
    if any(process.returncode == errno.ENOSPC for process in processes):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if not job.is_finished():
        statuses = sorted({process.returncode for process in processes})
        raise UserError(
            f"{job.source.key}.path={job.source.path}: the processes that tokenise it ended with status "
            f"{', '.join(map(str, statuses))}, -9 if memory ran out. Start again with fewer of them "
            "(harness tokenize --processes); what is built stays."
        )


@contextmanager
def _helpers(spec: Path, count: int) -> Iterator[tuple[list[subprocess.Popen[str]], list[str], list[int]]]:
    """Start helper processes. Yield them, the errors that they print, and the characters that they encode."""
    program = [sys.executable, "-P", "-m", "harness.data.shards.helper_process"]
    command = [*program, str(spec), str(os.getpid())]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | ENVIRONMENT)
        for _ in range(count)
    ]
    errors, counts = list[str](), list[int]()

    def read(process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            kind, _, content = line.partition(" ")
            if kind == ERROR:
                errors.append(json.loads(content))
            else:
                counts.append(int(content))

    threads = [threading.Thread(target=read, args=(process,), daemon=True) for process in processes]
    for thread in threads:
        thread.start()
    try:
        yield processes, errors, counts
    finally:
        for process in processes:
            if errors or sys.exc_info()[0]:
                process.kill()
            process.wait()
        for thread in threads:
            thread.join()


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


def _records(job: Job) -> dict[str, ShardRecord]:
    """Return the records of the shards that are complete, by name, in order."""
    names = sorted(name.removesuffix(".json") for name in job.names() if name.endswith(".json"))
    found = {name: read_shard_record(job.folder, name) for name in names if name[0].isdigit()}
    return {name: record for name, record in found.items() if record is not None}


def _finish(job: Job) -> str:
    """Make an entry of complete shards. Return its key."""
    if not job.folder.exists():  # another host has finished it
        return tokens_key(job.source, job.encoding)
    _check_unchanged(job)
    records = _records(job)
    for number, digest in _file_hashes(job, records):
        remember_file_hash(job.source.files[number], digest)
    key = tokens_key(job.source, job.encoding)
    _write_starts(job.folder, [*records])
    shards = tuple(
        ManifestShard(
            name,
            record.train,
            record.heldout,
            {split: file_state(tokens_path(job.folder, name, split)) for split in SPLITS},
        )
        for name, record in records.items()
    )
    manifest = Manifest(shards)
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
