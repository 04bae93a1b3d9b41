"""Split of a source into training and held-out text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from enum import Enum


class Split(Enum):
    """Way in which a source is divided into training and held-out text."""

    documents = "documents"
    """Each document goes to one side, by a hash of its text."""
    tails = "tails"
    """The last `data.holdout` of the characters of each document is held out. It is used for a source of so
    few documents that the other way leaves one side without any."""
    files = "files"
    """Whole files are held out, by a hash of their names: those of tokens that tell no documents."""
    validation = "validation"
    """A file of its own is held out, and everything else is trained on (`data.sources.*.validation`)."""


def is_heldout(document: str, share: float) -> bool:
    """Return whether a document is held out, by its text alone: copies in other sources agree."""
    draw = int.from_bytes(hashlib.sha256(document.encode()).digest()[:8], "big")
    return draw < share * 2.0**64


def divide(document: str, share: float, split: Split) -> Iterator[tuple[bool, str]]:
    """Yield (whether it is held out, text) for the parts of a document. Depends on its text alone."""
    if split is not Split.tails:
        yield is_heldout(document, share), document
        return
    cut = len(document) - int(share * len(document))
    yield False, document[:cut]
    if document[cut:]:
        yield True, document[cut:]
