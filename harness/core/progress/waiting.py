"""Locks that are waited for: whoever waits reports for whom."""

from __future__ import annotations

import fcntl
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path

from harness.core.file_locks import lock_file
from harness.core.progress.report import report

POLL_SECONDS = 0.05
"""Seconds between two attempts at first; each is twice as long as the one before, up to the maximum."""
MAX_POLL_SECONDS = 0.25
_NO_MORE = object()
_spare_work: ContextVar[Iterator[object] | None] = ContextVar("work for a wait", default=None)


@contextmanager
def hold_lock(path: Path, purpose: str, way_out: str) -> Iterator[None]:
    """Hold the lock of a file. While another process or thread has it, report that this one waits, and for
    whom: the kernel frees the lock of a process that ends, so the holder lives. `purpose`: what is done under
    the lock. Raises LockingUnsupported, with `way_out`."""
    with hold_one_of([path], purpose, way_out):
        yield


@contextmanager
def hold_one_of(paths: Sequence[Path], purpose: str, way_out: str) -> Iterator[None]:
    """Hold the first free lock of files in one folder, as `hold_lock` holds one: as many processes and
    threads as there are files do their work at a time."""
    with ExitStack() as files:
        descriptors = [files.enter_context(path.open("a+")).fileno() for path in paths]
        wait = POLL_SECONDS
        while (descriptor := _first_free(descriptors, paths[0].parent, way_out)) is None:
            if _do_spare_work():
                continue
            report(f"waits for {_holder(descriptors[0])} ({paths[0].name})")
            time.sleep(wait)
            wait = min(2 * wait, MAX_POLL_SECONDS)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}: {purpose}".encode(), 0)
        try:
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child forked meanwhile holds the file open


@contextmanager
def spare_work(work: Iterator[object]) -> Iterator[None]:
    """While this thread has to wait for a lock within the block, let it do the next piece of `work`, which is
    done whenever an item is asked for."""
    token = _spare_work.set(work)
    try:
        yield
    finally:
        _spare_work.reset(token)


def _do_spare_work() -> bool:
    """Do a piece of the work that this thread has left for a wait. Return whether there was any."""
    work = _spare_work.get()
    if work is None:
        return False
    token = _spare_work.set(None)  # it may wait for locks too
    try:
        return next(work, _NO_MORE) is not _NO_MORE
    finally:
        _spare_work.reset(token)


def _first_free(descriptors: Sequence[int], folder: Path, way_out: str) -> int | None:
    return next((descriptor for descriptor in descriptors if _try(descriptor, folder, way_out)), None)


def _try(descriptor: int, folder: Path, way_out: str) -> bool:
    try:
        lock_file(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, folder, way_out)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int) -> str:
    return os.pread(descriptor, 300, 0).decode(errors="replace") or "another process"


@contextmanager
def hold_thread_lock(lock: threading.Lock, activity: str) -> Iterator[None]:
    """Hold a lock of this process. While another thread has it, report `activity`."""
    while not lock.acquire(timeout=MAX_POLL_SECONDS):
        report(activity)
    try:
        yield
    finally:
        lock.release()
