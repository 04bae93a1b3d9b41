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
from harness.data.shards.content_hash import leaf_hash, num_leaves
from harness.data.shards.encode_piece import Encoding, encode_piece
from harness.data.shards.pieces import FileRange, Piece, PiecePlan, piece_name, plan_pieces
from harness.data.text.documents import cut_segments, is_line_format, open_text, suffix_of
from harness.data.text.sources import Source

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
        """Return the names of all files in the folder."""
        return {entry.name for entry in os.scandir(self.folder)}

    def is_complete(self, names: set[str]) -> bool:
        """Return whether every shard is there; `names`: those of the files in the folder."""
        return (
            all(f"{piece.name}.json" in names for piece in self.plan.pieces)
            and all(_stream_end(file) in names for file in self.plan.streams)
            and not any(_SEGMENT in name for name in names)
        )


def build_pieces(job: Job, alive: Alive) -> None:
    """Build pieces until every shard is there, by whomever. Raises UserError for bad text."""
    while True:
        names = job.names()
        if not _build_any(job, names, alive):
            if job.is_complete(job.names()):
                return
            alive(0)
            time.sleep(POLL_SECONDS)


def _build_any(job: Job, names: set[str], alive: Alive) -> bool:
    """Build one piece that nobody else builds, or expand a stream. Return False if there is none."""
    if _build_segment(job, names, alive):
        return True
    for file in job.plan.streams:
        if _stream_end(file) not in names and _expand(job, file, alive):
            return True
    missing = (piece for piece in job.plan.pieces if f"{piece.name}.json" not in names)
    return any(_build(job, job.source, piece, alive) for piece in missing)


def _build(job: Job, source: Source, piece: Piece, alive: Alive) -> bool:
    """Build a piece if it is free. Return whether it was built."""
    with _claim(job.folder, piece.name) as is_free:
        if not is_free or (job.folder / f"{piece.name}.json").exists():
            return False
        encode_piece(source, piece, job.encoding, job.folder, alive)
        with (job.folder / BUILT_LOG).open("a") as log:
            log.write(f"{piece.name}\n")
        return True


def _build_segment(job: Job, names: set[str], alive: Alive) -> bool:
    """Build a piece of a stream that was expanded."""
    for segment in sorted(name for name in names if _SEGMENT in name):
        name, file = segment.split(".")[0], job.folder / segment
        source = job.source.with_files((file,))
        piece = Piece(name, (FileRange(0),), (), 0)
        try:
            is_built = _build(job, source, piece, alive)
        except FileNotFoundError:  # another process has built it meanwhile
            continue
        if is_built or (job.folder / f"{name}.json").exists():
            file.unlink(missing_ok=True)
        if is_built:
            return True
    return False


def _expand(job: Job, number: int, alive: Alive) -> bool:
    """Expand a stream into segments for all processes, building some of them. Return False if another process
    does so."""
    with _claim(job.folder, f"stream-{number:07}") as is_free:
        if not is_free or (job.folder / _stream_end(number)).exists():
            return False
        file = job.source.files[number]
        suffix, count = _plain_suffix(file), 0
        for segment in _segments(job.source, file):
            name = piece_name(number, count)
            count += 1
            path = job.folder / f"{name}{_SEGMENT}{suffix}"
            if (job.folder / f"{name}.json").exists() or path.exists():
                continue
            while _num_waiting(names := job.names()) >= WAITING_SEGMENTS * job.processes:
                if not _build_segment(job, names, alive):
                    time.sleep(POLL_SECONDS)
            atomic_files.write_bytes(path, segment)
            alive(0)
        leaves = [(number, leaf, leaf_hash(file, leaf)) for leaf in range(num_leaves(file.stat().st_size))]
        content = {"segments": count, "leaves": leaves}
        atomic_files.write_checksummed_json(job.folder / _stream_end(number), content)
        return True


def _segments(source: Source, file: Path) -> Iterator[bytes]:
    with source.reading(file):
        stream = open_text(file, source.place(file))
        yield from cut_segments(stream, is_line_format(file), SEGMENT_BYTES)


def _num_waiting(names: set[str]) -> int:
    return sum(_SEGMENT in name for name in names)


def _stream_end(file: int) -> str:
    return f"stream-{file:07}.json"


def _plain_suffix(file: Path) -> str:
    suffix = suffix_of(file)
    assert suffix is not None
    return f".{suffix.split('.')[1]}"


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
