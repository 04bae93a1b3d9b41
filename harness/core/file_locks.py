"""Locks on files, and what is said of a file system that keeps none."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path

from harness.core.errors import UserError

_UNSUPPORTED = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}
"""What bucket mounts, and network file systems without a lock service, answer."""


class LockingUnsupported(UserError):
    """The file system keeps no locks."""


def lock_file(descriptor: int, kind: int, folder: Path, way_out: str) -> None:
    """`fcntl.flock` of a file in a folder. Raises BlockingIOError where another process holds it and `kind`
    does not wait, NoLocks where nobody can hold anything."""
    try:
        fcntl.flock(descriptor, kind)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        why = (
            f"its file system keeps no locks ({error.strerror}), without which two would write there at once"
        )
        raise LockingUnsupported(f"{folder}: {why}; {way_out}") from error
