"""Advisory lock of the one process that may write; the kernel releases it whenever the owner dies.

The lock file names the owner (host, process id, start time) for messages of other processes. The lock covers
the time between a worker's start and its first status, when a second driver could start a second worker.
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
"""Exit status of a worker whose runs are locked by another worker."""

WAY_OUT = "mount it with locks (NFS 4, Lustre with flock), or choose another folder with runs=..."

_descriptors: dict[str, int] = {}


def acquire(path: Path, wait_seconds: float = 1.0) -> bool:
    """Lock `path` until this process ends; return False if another process holds the lock.

    A process may acquire a lock repeatedly. The wait covers readers, which test a lock by taking it. Raises
    UserError on a file system without locks, and leaves no file there.
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
            path.parent.rmdir()  # if it is empty
        raise
    if not _is_file_at(descriptor, path):  # the previous owner removed the file meanwhile
        os.close(descriptor)
        return acquire(path, wait_seconds)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(dataclasses.asdict(ProcessInfo.current())).encode(), 0)
    _descriptors[key] = descriptor
    return True


def release(path: Path) -> None:
    """Release a lock of this process; a no-op if it holds none."""
    descriptor = _descriptors.pop(str(path.absolute()), None)
    if descriptor is not None:
        os.close(descriptor)


def release_and_remove(path: Path) -> None:
    """Release a lock of this process and remove its file."""
    if str(path.absolute()) in _descriptors:
        path.unlink(missing_ok=True)
        release(path)


def owner(path: Path) -> ProcessInfo | None:
    """Return the process that holds the lock; None if none does, or on a file system without locks."""
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
    """Return the live process that trains a run, by its lock, else by its status; None if none does."""
    process = owner(run.worker_lock)
    if process is not None:
        return process
    status = read_status(run)
    writer = status.writer
    alive = writer.alive() if writer is not None else False
    if alive is None and status.state not in (State.pending, State.running):
        return None  # on another host, but its last status was an end state
    return writer if alive is not False else None


def check_not_run_elsewhere(run: RunDir) -> None:
    """Raise UserError if another machine trains a run, or trained it when it was lost."""
    writer = worker_of(run)
    if writer is None or writer.alive() is not None:
        return
    lock_owner = owner(run.worker_lock) is not None
    process = f"process {writer.pid} on {writer.host}"
    # Without a lock, the status may have outlived its writer.
    way_out = f" If that machine is gone for good, delete {run.status}, and the run continues here."
    message = f"{run.path} is trained by {process}. Continue it there, or wait for its end."
    raise UserError(message if lock_owner else message + way_out)


def _open_for_locking(path: Path) -> int:
    """Open a file for writing, creating its folder, which another process may remove meanwhile. The umask
    decides who else may lock it: a team that shares a sweep does. Raises UserError where the system keeps
    folders of its own alone."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:
        raise UserError(
            f"{error.filename}: no folder can be made there. Choose a writable folder with runs=..."
        ) from error
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)


def _is_file_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _try_lock(descriptor: int, kind: int, folder: Path, wait_seconds: float) -> bool:
    """Lock a file; return False if another process still holds it after `wait_seconds`."""
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            lock_file(descriptor, kind | fcntl.LOCK_NB, folder, WAY_OUT)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
