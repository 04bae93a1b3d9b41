"""This user's folder for temporary files: links that Orbax needs, and locks of what a host has once."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def private_folder(base: str) -> Path:
    """Return this user's folder below `base`; make it if it is missing. Raises OSError if it cannot be made,
    and PermissionError if it is no folder that this user alone can write."""
    folder = Path(base, f"ab-harness-{os.geteuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    state = folder.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.geteuid() or state.st_mode & 0o022:
        raise PermissionError(errno.EPERM, "it is no folder that you alone can write", str(folder))
    return folder
