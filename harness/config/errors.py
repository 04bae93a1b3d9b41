"""The one exception that a user is meant to see: a sentence, never a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake of the user, said in one sentence: the key, the value and the way out.

    Every command prints it as one line and exits with status 2.
    """


def nearest(word: str, candidates: Iterable[str]) -> str:
    """A phrase that names the nearest valid spelling, or lists what is valid (at most 12)."""
    valid = sorted(set(map(str, candidates)))
    close = difflib.get_close_matches(str(word), valid, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0]}'?"
    shown = ", ".join(valid[:12]) + (", ..." if len(valid) > 12 else "")
    return f"valid: {shown}" if valid else "nothing is registered"
