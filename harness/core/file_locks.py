"""File locks, the error for a file system without them, and the folder of a host's own locks."""

from __future__ import annotations

import errno
import fcntl
import tempfile
from pathlib import Path

from harness.core.errors import UserError
from harness.core.files.private_folder import private_folder

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


def host_dir() -> Path:
    """Return the folder for locks of what each host has once, which a shared home must not hold. Raises
    UserError if it cannot be made, or if anybody else could write there."""
    base = tempfile.gettempdir()
    try:
        return private_folder(base)
    except OSError as error:
        raise UserError(
            f"{error.filename or base}: the locks of this host cannot lie there ({error.strerror}). Name a "
            "folder for temporary files with TMPDIR=FOLDER."
        ) from error
