"""Claims on pieces: a process builds the shard of a piece under the piece's lock, so no shard is built twice.

Any number of processes, on any number of machines with one cache folder, share the pieces of a source. The
kernel frees the lock of a process that ends, and a piece without a record is free again.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.core import atomic_files
from harness.core.file_locks import lock_file
from harness.data.documents.read_documents import cut_segments, is_line_format, open_text
from harness.data.shards.encoding import Encoding
from harness.data.shards.shard_file import ShardRecord, record_path
from harness.data.text_sources.leaf_hash import leaf_hash, num_leaves
from harness.data.text_sources.source import Source
from harness.data.tokenizing.encode_piece import encode_documents, encode_piece
from harness.data.tokenizing.pieces import PiecePlan, piece_name, plan_pieces

WAY_OUT = "choose another cache with AB_HARNESS_CACHE=FOLDER"
SEGMENT_BYTES = 2**25
"""Bytes of text of a piece of a stream."""
WAITING_SEGMENTS = 4
"""Segments that wait in the folder for each process, before whoever expands a stream encodes one itself."""
POLL_SECONDS = 0.1
BUILT_LOG = "built"
"""File with a line for each shard that was built."""
_SEGMENT = ".segment"

Alive = Callable[[int], None]
"""Receiver of the characters that were encoded since the last call; it raises to give up."""


@dataclass(frozen=True)
class Job:
    """Shards of a source that are built in a folder."""

    source: Source
    encoding: Encoding
    folder: Path
    processes: int = 1

    @cached_property
    def plan(self) -> PiecePlan:
        """Pieces of the source."""
        return plan_pieces(self.source)

    def names(self) -> set[str]:
        """Return the names of all files in the folder; none if it has become an entry of the cache."""
        try:
            return {entry.name for entry in os.scandir(self.folder)}
        except FileNotFoundError:
            return set()

    def is_complete(self, names: set[str]) -> bool:
        """Return whether every shard is there; `names`: those of the files in the folder."""
        ends = [*(f"{piece.name}.json" for piece in self.plan.pieces), *map(stream_end, self.plan.streams)]
        return names.issuperset(ends) and not any(_SEGMENT in name for name in names)

    def is_finished(self) -> bool:
        """Return whether every shard is there, perhaps already in an entry of the cache."""
        return self.is_complete(self.names()) or not self.folder.exists()


def build_pieces(job: Job, alive: Alive) -> None:
    """Build pieces until every shard is there, by whomever. Raises UserError for bad text."""
    while True:
        try:
            is_built = _build_any(job, job.names(), alive)
        except FileNotFoundError:  # another process found all shards, and has made an entry of them
            is_built = False
            if job.folder.exists():
                raise
        if not is_built:
            if job.is_finished():
                return
            alive(0)
            time.sleep(POLL_SECONDS)


def _build_any(job: Job, names: set[str], alive: Alive) -> bool:
    """Build one piece that nobody else builds, or expand a stream. Return False if there is none."""
    if _build_segment(job, names, alive):
        return True
    for file in job.plan.streams:
        if stream_end(file) not in names and _expand(job, file, alive):
            return True
    missing = (piece for piece in job.plan.pieces if f"{piece.name}.json" not in names)
    terms = job.encoding, job.folder, alive
    return any(
        _build(job, piece.name, lambda piece=piece: encode_piece(job.source, piece, *terms))
        for piece in missing
    )


def _build(job: Job, name: str, encode: Callable[[], ShardRecord]) -> bool:
    """Build a shard if its piece is free. Return whether it was built."""
    with _claim(job.folder, name) as is_free:
        if not is_free or record_path(job.folder, name).exists():
            return False
        encode()
        with (job.folder / BUILT_LOG).open("a") as log:
            log.write(f"{name}\n")
        return True


def _build_segment(job: Job, names: set[str], alive: Alive) -> bool:
    """Build a piece of a stream that was expanded."""
    for segment in sorted(name for name in names if _SEGMENT in name):
        name, _, lines = segment.partition(_SEGMENT)
        path = job.folder / segment

        def encode(name: str = name, lines: str = lines, path: Path = path) -> ShardRecord:
            file, content = job.source.files[int(name.split("-")[0])], path.read_bytes()
            documents = job.source.documents_of_segment(file, content, int(lines))
            return encode_documents(documents, [], job.encoding, job.folder / name, alive)

        try:
            is_built = _build(job, name, encode)
        except FileNotFoundError:  # another process has built it meanwhile
            continue
        if record_path(job.folder, name).exists():
            path.unlink(missing_ok=True)
        if is_built:
            return True
    return False


def _expand(job: Job, number: int, alive: Alive) -> bool:
    """Expand a stream into segments for all processes, building some of them. Return False if another process
    does so."""
    with _claim(job.folder, f"stream-{number:07}") as is_free:
        if not is_free or (job.folder / stream_end(number)).exists():
            return False
        file, count, lines = job.source.files[number], 0, 0
        for content in _segments(job.source, file):
            name = piece_name(number, count)
            path = job.folder / f"{name}{_SEGMENT}{lines}"
            count, lines = count + 1, lines + content.count(b"\n")
            if not (record_path(job.folder, name).exists() or path.exists()):
                _make_room(job, alive)
                atomic_files.write_bytes(path, content)
            alive(0)
        leaves = [(number, leaf, leaf_hash(file, leaf)) for leaf in range(num_leaves(file.stat().st_size))]
        atomic_files.write_checksummed_json(job.folder / stream_end(number), {"leaves": leaves})
        return True


def _make_room(job: Job, alive: Alive) -> None:
    """Build segments until few enough wait."""
    while True:
        names = job.names()
        if sum(_SEGMENT in name for name in names) < WAITING_SEGMENTS * job.processes:
            return
        if not _build_segment(job, names, alive):
            alive(0)
            time.sleep(POLL_SECONDS)


def _segments(source: Source, file: Path) -> Iterator[bytes]:
    with source.reading(file), open_text(file, source.place(file)) as stream:
        yield from cut_segments(stream, is_line_format(file), SEGMENT_BYTES)


def stream_end(file: int) -> str:
    """Return the name of the file that tells that a stream is expanded."""
    return f"stream-{file:07}.json"


@contextmanager
def _claim(folder: Path, name: str) -> Iterator[bool]:
    """Hold the lock of a piece if it is free. Yield whether it is held."""
    with (folder / f"{name}.lock").open("a") as file:
        try:
            lock_file(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB, folder, WAY_OUT)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.flock(file.fileno(), fcntl.LOCK_UN)
