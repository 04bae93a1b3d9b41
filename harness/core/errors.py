"""The one exception that a user is meant to see: a sentence, never a traceback."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable


class UserError(Exception):
    """A mistake of the user, said in one sentence: the key, the value and the way out.

    Every command prints it as one line and exits with status 2.
    """


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """A phrase that names the nearest valid spelling, or lists what is valid (at most 12)."""
    valid = sorted(set(map(str, candidates)))
    close = difflib.get_close_matches(str(word), valid, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0]}'?"
    listing = ", ".join(valid[:12]) + (", ..." if len(valid) > 12 else "")
    return f"valid: {listing}" if valid else "nothing is registered"


def disk_error(error: OSError, place: object) -> UserError | None:
    """A sentence for a disk that is full or closed to us; None for any other trouble."""
    where = error.filename or place
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            f"{where}: the disk is full; make room and repeat the command, nothing that was saved is lost"
        )
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST):
        return UserError(f"{where}: {error.strerror}; choose a folder that can be written with runs=...")
    return None
