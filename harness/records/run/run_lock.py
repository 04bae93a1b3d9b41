"""Who may write: an advisory lock that the kernel takes back when its holder dies, however it dies.

A claim names its holder (host, process id, start time), so that others can say who it is. It
covers the moment between the start of a process and its first status, in which a second
driver would otherwise start a second worker on the same run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import time
from pathlib import Path

from harness.core.errors import UserError
from harness.core.file_locks import LockingUnsupported, lock_file
from harness.records.paths import RunDir
from harness.records.run.status import ProcessInfo, State, read_status

ALREADY_RUNNING = 75
"""Exit status of a worker that found its runs in the hands of another one."""

WAY_OUT = "mount it with locks (NFS 4, Lustre with flock), or choose another folder with runs=..."

_descriptors: dict[str, int] = {}


def acquire(path: Path, wait_seconds: float = 1.0) -> bool:
    """Hold `path` until this process ends. False if another process holds it.

    Repeated claims by one process succeed. Waits a moment, since a reader tests by locking. Raises UserError
    on a file system without locks, and leaves nothing there.
    """
    key = str(path.absolute())
    if key in _descriptors:
        return True
    descriptor = _open_for_locking(path)
    try:
        if not _try_lock(descriptor, fcntl.LOCK_EX, path.parent, wait_seconds):
            os.close(descriptor)
            return False
    except LockingUnsupported:
        os.close(descriptor)
        path.unlink()
        with contextlib.suppress(OSError):
            path.parent.rmdir()  # goes if it is empty
        raise
    if not _is_file_at(descriptor, path):  # its holder took the file away as it left
        os.close(descriptor)
        return acquire(path, wait_seconds)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(dataclasses.asdict(ProcessInfo.current())).encode(), 0)
    _descriptors[key] = descriptor
    return True


def release(path: Path) -> None:
    """Give a claim of this process back."""
    descriptor = _descriptors.pop(str(path.absolute()), None)
    if descriptor is not None:
        os.close(descriptor)


def release_and_remove(path: Path) -> None:
    """Give a claim of this process back, and the file with it."""
    if str(path.absolute()) in _descriptors:
        path.unlink(missing_ok=True)
        release(path)


def owner(path: Path) -> ProcessInfo | None:
    """Who holds the claim now; None if nobody does, as on a file system without locks."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        if _try_lock(descriptor, fcntl.LOCK_SH, path.parent, 0.0):
            return None
        return ProcessInfo(**json.loads(os.pread(descriptor, 4096, 0)))
    except LockingUnsupported:
        return None
    except (ValueError, TypeError):
        return ProcessInfo("", 0, "")
    finally:
        os.close(descriptor)


def worker_of(run: RunDir) -> ProcessInfo | None:
    """The live process that trains a run, by its claim, or by its status where it holds none."""
    process = owner(run.worker_lock)
    if process is not None:
        return process
    status = read_status(run)
    writer = status.writer
    lives = writer.alive() if writer is not None else False
    if lives is None and status.state not in (State.pending, State.running):
        return None  # of another host; what it said last was its end
    return writer if lives is not False else None


def check_not_run_elsewhere(run: RunDir) -> None:
    """Raises UserError where another machine has a run, or had it when it was lost: what a lock says is so,
    but a status outlives its writer."""
    writer = worker_of(run)
    if writer is None or writer.alive() is not None:
        return
    locked = owner(run.worker_lock) is not None
    way_out = (
        "" if locked else f"; if that machine is gone for good, delete {run.status}, and the run goes on here"
    )
    raise UserError(
        f"{run.path}: process {writer.pid} on {writer.host} trains it: continue there, or wait for it{way_out}"
    )


def _open_for_locking(path: Path) -> int:
    """For writing; its folder may go while we look."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)


def _is_file_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _try_lock(descriptor: int, kind: int, folder: Path, wait_seconds: float) -> bool:
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            lock_file(descriptor, kind | fcntl.LOCK_NB, folder, WAY_OUT)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
