"""Plain forms of the signs that ASCII and latin-1 lack, so that no terminal ends a command."""

from __future__ import annotations

import codecs
import io
import sys

PLAIN = {
    "Δ": "d", "−": "-", "–": "-", "×": "x", "±": "+-", "·": ".", "…": "...", "━": "-", "╸": "-", "╺": "-",
    "○": "o", "◆": "*", "▏": "|", "┃": "|", "→": "->", "\u2003": " ", "\u200b": "&#8203;",
    "\u00a0": " ", "\u202f": " ", "’": "'",
}  # fmt: skip
"""Plain form of each sign that the package prints. The last, in Markdown, keeps its meaning as an entity."""


def print_plain_signs() -> None:
    """Let the standard streams print a sign that their encoding lacks in its plain form, and any other letter
    as an escape such as \\u4e2d."""
    codecs.register_error("plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    texts = (PLAIN.get(letter) or letter.encode("unicode_escape").decode("ascii") for letter in letters)
    return "".join(texts), error.end
