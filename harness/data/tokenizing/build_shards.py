"""Construction of all shards of a source: helper processes, progress, and the end that makes them an entry.

Shards are built in a folder named by the state of the files, since the hash of their content is known only
when all is read. A killed build is continued there. On one host one process leads; hosts with one cache
folder share the pieces.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from harness.core.errors import UserError
from harness.core.file_locks import host_dir
from harness.core.host_memory import free_memory
from harness.core.number_format import format_bytes, format_clock
from harness.core.progress.report import report
from harness.core.progress.waiting import hold_lock
from harness.data.shards.encoding import Encoding
from harness.data.shards.manifest import (
    read_manifest,
)
from harness.data.shards.tokens_key import tokens_key
from harness.data.text_sources.source import Source
from harness.data.text_sources.source_hash import is_hashed
from harness.data.tokenizing.claims import WAY_OUT, Job, build_pieces
from harness.data.tokenizing.disk_room import as_full_disk, check_room, shard_bytes
from harness.data.tokenizing.draft import draft_folder, finish_draft, shard_records
from harness.data.tokenizing.helper_pool import helper_processes
from harness.data.tokenizing.job_file import write_job

PROCESS_BYTES = 2**28
"""Memory that a helper process needs."""
POLL_SECONDS = 0.25


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
        before = sum(record.train.bytes + record.heldout.bytes for record in shard_records(job).values())
        meter = _Meter(source.name, text_bytes, limits.show, before=before)
        if job.processes == 1 or len(job.plan.pieces) + 2 * len(job.plan.streams) <= 1:
            build_pieces(job, meter.add)
        else:
            _build_with_helpers(job, meter)
        with _draft_lock(job):
            return finish_draft(job)


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
    with helper_processes(spec, job.processes) as pool:
        while pool.is_working():
            meter.show_done(sum(pool.counts))
            time.sleep(POLL_SECONDS)
    if pool.errors:
        raise UserError(pool.errors[0])
    statuses = sorted({process.returncode for process in pool.processes})
    if errno.ENOSPC in statuses:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if not job.is_finished():
        raise UserError(
            f"{job.source.key}.path={job.source.path}: the processes that tokenise it ended with status "
            f"{', '.join(map(str, statuses))}, -9 if memory ran out. Start again with fewer of them "
            "(harness tokenize --processes); what is built stays."
        )
