"""Locks that are waited for: whoever waits reports for whom."""

from __future__ import annotations

import fcntl
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.core.file_locks import lock_file
from harness.core.progress.report import report

POLL_SECONDS = 0.05
"""Seconds between two attempts at first; each is twice as long as the one before, up to the maximum."""
MAX_POLL_SECONDS = 1.0


@contextmanager
def hold_lock(path: Path, purpose: str, way_out: str) -> Iterator[None]:
    """Hold the lock of a file. While another process or thread has it, report that this one waits, and for
    whom: the kernel frees the lock of a process that ends, so the holder lives. `purpose`: what is done under
    the lock. Raises LockingUnsupported, with `way_out`."""
    with path.open("a+") as file:
        descriptor, wait = file.fileno(), POLL_SECONDS
        while not _try(descriptor, path.parent, way_out):
            report(f"waits for {_holder(descriptor)} ({path.name})")
            time.sleep(wait)
            wait = min(2 * wait, MAX_POLL_SECONDS)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}: {purpose}".encode(), 0)
        try:
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child forked meanwhile holds the file open


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
