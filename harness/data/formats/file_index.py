"""Index of the documents of a file of tokens, made by one pass over it and kept in the cache.

A document ends after the end token, and where the format says so. A file without both is one piece. Where
only end tokens tell documents apart, the last piece of a file may go on in the next one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from jaxtyping import Int, Int64, UInt8, UInt64

from harness.core.errors import UserError
from harness.core.number_format import format_si
from harness.core.progress.report import report
from harness.data.formats.token_format import FileTokens, TokenFileError, TokenReader
from harness.data.tokens.cached_arrays import ArrayWriter, StoredArrays, build_arrays, stored_arrays
from harness.data.tokens.token_sequence import TokenSequence

MAX_TOKEN = 2**32 - 1
PARALLEL_BYTES = 2**26
"""Bytes of files that are left to index from which on several processes do it."""


@dataclass(frozen=True)
class IndexTask:
    """A file to index, with all that its index depends on."""

    reader: TokenReader
    format: str
    file: Path
    column: str
    end_token: int | None
    where: str
    """Words that name the file in messages."""

    @property
    def inputs(self) -> list[Any]:
        """Everything that the index depends on."""
        facts = [self.format, self.reader.options, self.column, self.end_token]
        return ["file", str(self.file.resolve()), self.reader.version(self.file), *facts]


@dataclass(frozen=True)
class FileIndex:
    """Pieces of a file, each up to a document's end or the file's; piece s begins where s - 1 stops."""

    stop_S: Int64[np.ndarray, " S"]
    """Place after the last token of each piece, with the end token if there is one."""
    ended_S: UInt8[np.ndarray, " S"]
    """1 where the last token of a piece is the end token."""
    hash_S: UInt64[np.ndarray, " S"]
    """First eight bytes of the sha256 of the tokens (uint32, little-endian) without the end token."""
    has_starts: bool
    """True if the format tells where documents begin, so that none goes on in the next file."""
    smallest: int
    largest: int
    digest: str
    """Hash of all pieces."""

    @classmethod
    def of(cls, stored: StoredArrays) -> FileIndex:
        """Return the index that was stored."""
        return cls(**stored.arrays, **stored.facts)


def index_files(name: str, tasks: Sequence[IndexTask]) -> list[FileIndex]:
    """Return the indices of files; those that are not in the cache are made, in several processes if they are
    large. A killed run continues at the file. Raises UserError for tokens that are none."""
    todo = [task for task in tasks if stored_arrays(task.inputs) is None]
    sizes = {task.file: _size(task.file) for task in todo}
    total = sum(sizes.values())
    cores = len(os.sched_getaffinity(0))
    if total >= PARALLEL_BYTES and len(todo) > 1 and cores > 1:
        _index_in_processes(name, todo, min(cores, len(todo)), sizes, total)
    # No process can start for a script that has no `if __name__ == "__main__"`.
    for task in (task for task in todo if stored_arrays(task.inputs) is None):
        _index_file(task)
    return [FileIndex.of(_stored(task)) for task in tasks]


def _index_in_processes(
    name: str, todo: Sequence[IndexTask], processes: int, sizes: dict[Path, int], total: int
) -> None:
    finished_bytes = 0
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        files = {pool.submit(_index_file, task): task.file for task in todo}
        running = set(files)
        try:
            while running:
                finished, running = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
                    finished_bytes += sizes[files[future]]
                report(f"indexing {name}, {format_si(total)}bytes", finished_bytes, total)
        except BrokenProcessPool:  # the caller makes the rest
            return
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _index_file(task: IndexTask) -> None:
    def write(writer: ArrayWriter) -> dict[str, Any]:
        version = task.reader.version(task.file)
        facts = _write_pieces(task, writer)
        if task.reader.version(task.file) != version:
            raise UserError(f"{task.where} changed while it was read. Start again when it is complete.")
        return facts

    build_arrays(task.inputs, f"indexes {task.file.name}", write)


def fresh_digest(task: IndexTask) -> str:
    """Return the hash of all pieces of a file as it is now, whatever the cache says. Raises UserError."""
    with TemporaryDirectory(prefix="ab-harness-") as folder, ExitStack() as stack:
        try:
            return _write_pieces(task, ArrayWriter(Path(folder), stack))["digest"]
        except TokenFileError as error:
            raise UserError(f"{task.where} {error}") from None


def _write_pieces(task: IndexTask, writer: ArrayWriter) -> dict[str, Any]:
    with _reading(task):
        tokens = task.reader.open(task.file, task.column)
        start_D = tokens.find_starts()
        _check_starts(start_D, len(tokens))
    for name, dtype in (("stop_S", "<i8"), ("ended_S", "u1"), ("hash_S", "<u8")):
        writer.append(name, np.empty(0, dtype))
    smallest, largest, digest = MAX_TOKEN, 0, hashlib.sha256()
    pieces = _Pieces()
    before = 0
    for run_N in _runs(task, tokens):
        report(f"indexing {task.file.name}", before, len(tokens))
        smallest, largest = min(smallest, int(run_N.min())), max(largest, int(run_N.max()))
        stop_P, ended_P = _stops(run_N, before, start_D, task.end_token)
        hash_P = pieces.hashes(run_N, stop_P - before, ended_P)
        before += len(run_N)
        _append(writer, digest, stop_P, ended_P, hash_P)
    if (last_hash := pieces.rest()) is not None:
        _append(writer, digest, np.array([before]), np.zeros(1, np.uint8), np.array([last_hash], np.uint64))
    return {
        "has_starts": start_D is not None,
        "smallest": smallest,
        "largest": largest,
        "digest": digest.hexdigest(),
    }


def _runs(task: IndexTask, tokens: FileTokens) -> Iterator[Int[np.ndarray, " N"]]:
    """Yield all tokens of a file. Raises UserError for a number that is no token, and for a failing disk."""
    runs = TokenSequence.of_parts(tokens.parts).runs()
    while True:
        with _reading(task):
            run_N = next(runs, None)
            if run_N is None:
                return
            smallest, largest = int(run_N.min()), int(run_N.max())
            if smallest < 0 or largest > MAX_TOKEN:
                raise TokenFileError(
                    f"holds {smallest if smallest < 0 else largest}, which is no token: correct its dtype."
                )
        yield run_N


@contextmanager
def _reading(task: IndexTask) -> Iterator[None]:
    """Turn errors of a file of the user into a UserError."""
    try:
        yield
    except TokenFileError as error:
        raise UserError(f"{task.where} {error}") from None
    except OSError as error:
        raise UserError(
            f"{task.where} cannot be read ({error.strerror or error}). Copy it again, or wait until it is"
            " complete."
        ) from None


def _check_starts(start_D: Int64[np.ndarray, " D"] | None, count: int) -> None:
    if start_D is None or not len(start_D):
        return
    if start_D[0] or int(start_D[-1]) > count or (np.diff(start_D) < 0).any():
        raise TokenFileError("tells of documents that lie outside it. Copy it again.")


def _stops(
    run_N: Int[np.ndarray, " N"], before: int, start_D: Int64[np.ndarray, " D"] | None, end_token: int | None
) -> tuple[Int64[np.ndarray, " P"], UInt8[np.ndarray, " P"]]:
    """Return the places in a file after which pieces end within a run, and where that is the end token."""
    stop_P = np.empty(0, np.int64) if end_token is None else np.flatnonzero(run_N == end_token) + before + 1
    if start_D is None:
        return stop_P, np.ones(len(stop_P), np.uint8)
    first, last = np.searchsorted(start_D, (before, before + len(run_N)), side="right")
    all_stops = np.union1d(stop_P, start_D[first:last])
    return all_stops, np.isin(all_stops, stop_P, assume_unique=True).astype(np.uint8)


class _Pieces:
    """Hashes of pieces whose tokens come in runs."""

    def __init__(self) -> None:
        self._open = None

    def hashes(
        self, run_N: Int[np.ndarray, " N"], stop_P: Int64[np.ndarray, " P"], ended_P: UInt8[np.ndarray, " P"]
    ) -> UInt64[np.ndarray, " P"]:
        """Return the hashes of the pieces that end in a run, at places within it."""
        content = np.ascontiguousarray(run_N, "<u4").data.cast("B")
        hash_P, first = np.empty(len(stop_P), np.uint64), 0
        for piece, (stop, is_ended) in enumerate(zip(stop_P.tolist(), ended_P.tolist(), strict=True)):
            hasher, self._open = self._open or hashlib.sha256(), None
            hasher.update(content[4 * first : 4 * (stop - is_ended)])
            hash_P[piece], first = short_hash(hasher.digest()), stop
        if first < len(run_N):
            self._open = self._open or hashlib.sha256()
            self._open.update(content[4 * first :])
        return hash_P

    def rest(self) -> int | None:
        """Return the hash of the piece that ends with the file; None if there is none."""
        return None if self._open is None else short_hash(self._open.digest())


def short_hash(digest: bytes) -> int:
    """Return the first eight bytes of a sha256 as a number."""
    return int.from_bytes(digest[:8], "big")


def hash_tokens(runs: Iterator[Int[np.ndarray, " N"]]) -> int:
    """Return the hash of the tokens of a document that comes in runs."""
    hasher = hashlib.sha256()
    for run_N in runs:
        hasher.update(np.ascontiguousarray(run_N, "<u4").data)
    return short_hash(hasher.digest())


def _append(writer: ArrayWriter, digest: Any, stop_P: Any, ended_P: Any, hash_P: Any) -> None:
    for name, values in (("stop_S", stop_P), ("ended_S", ended_P), ("hash_S", hash_P)):
        writer.append(name, values)
    for values in (stop_P, hash_P):
        digest.update(np.ascontiguousarray(values).data)


def _stored(task: IndexTask) -> StoredArrays:
    stored = stored_arrays(task.inputs)
    if stored is None:
        raise UserError(f"{task.where} changed while it was read. Start again when it is complete.")
    return stored


def _size(file: Path) -> int:
    paths = [file] if file.is_file() else [path for path in file.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in paths)
