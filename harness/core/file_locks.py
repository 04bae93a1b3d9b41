"""File locks, and the error for a file system that does not support them."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path

from harness.core.errors import UserError

_UNSUPPORTED = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}
"""Error numbers of bucket mounts, and of network file systems without a lock service."""


class LockingUnsupported(UserError):
    """The file system does not support locks."""


def lock_file(descriptor: int, kind: int, folder: Path, way_out: str) -> None:
    """Call `fcntl.flock` on a file in `folder`. Raises BlockingIOError if another process holds the lock and
    `kind` does not wait, and LockingUnsupported, with `way_out`, if the file system has no locks."""
    try:
        fcntl.flock(descriptor, kind)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        raise LockingUnsupported(
            f"{folder}: its file system does not support locks ({error.strerror}), so two processes could "
            f"write there at once; {way_out}"
        ) from error
