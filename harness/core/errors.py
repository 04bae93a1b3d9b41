"""UserError, the one exception that users see: a sentence, never a traceback."""

from __future__ import annotations

import difflib
import errno
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator

_CONTROL = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories: control, format (the order of reading among them), surrogate, line, paragraph."""


class UserError(Exception):
    """A mistake of the user. The message names the key and the value, then says what to do.

    Every command prints the message as one line and exits with status 2.
    """

    def __str__(self) -> str:
        """Return the message on one line. Names in it, such as a YAML key, cannot act on the terminal."""
        return re.sub(r"\s*\n\s*", " ", printable(super().__str__()))

    def _render_traceback_(self) -> list[str]:
        """Return the lines that a notebook shows: the message and its notes, without a traceback."""
        return [f"UserError: {self}", *getattr(self, "__notes__", ())]


def printable(text: object) -> str:
    """Return the text with control characters, such as those of a terminal, as escapes: \\x1b. Newlines, tabs
    and the joiners of some scripts stay."""
    return "".join(
        char.encode("unicode_escape").decode()
        if char not in "\n\t\u200c\u200d" and unicodedata.category(char) in _CONTROL
        else char
        for char in str(text)
    )


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """Return a phrase that names the nearest valid spelling, else lists at most 12 valid words."""
    valid = sorted(set(map(str, candidates)))
    close = difflib.get_close_matches(str(word), valid, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0]}'?"
    listing = ", ".join(valid[:12]) + (", ..." if len(valid) > 12 else "")
    return f"valid: {listing}" if valid else "nothing is registered"


def cause_chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes, each once: libraries make chains that lead back to themselves."""
    seen_ids: set[int] = set()
    while error is not None and id(error) not in seen_ids:
        seen_ids.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def disk_error(error: OSError, place: object) -> UserError | None:
    """Return the user error for a full disk or a path that is not open to us; None for any other error."""
    where = error.filename or place
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            f"{where}: the disk is full. Free some space and repeat the command. Saved results are kept."
        )
    if error.errno == errno.EACCES and os.path.isfile(str(where)):
        way_out = (
            "Ask its owner to share it (chmod, or a umask of 002), or choose another folder with runs=..."
        )
        return UserError(f"{where}: {error.strerror}. {way_out}")
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST):
        return UserError(f"{where}: {error.strerror}. Choose a writable folder with runs=...")
    return None
