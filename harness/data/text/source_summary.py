"""Summary of a source, for the lines that a launch prints and for the records of its runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.data.text_sources.source import Source
from harness.data.text_sources.source_hash import file_hash

MAX_DIGESTS = 100
"""Number of files up to which each is recorded with its digest."""
DIGITS = 16


@dataclass(frozen=True)
class SourceSummary:
    """Files and sizes of a source; equal fields make up `records.run.provenance.SourceFacts`."""

    content: str
    """Hash of the documents and their order."""
    files: int
    documents: int
    """Number of documents or images, with held-out ones."""
    train_tokens: int
    """Number of training tokens, or of training patches of images."""
    is_estimate: bool
    """True if the tokens were estimated from a sample."""
    heldout_share: float
    """Share of the text or the images that is held out."""
    split: str
    """`documents` if whole documents or images are held out, `tails` if the end of each document is."""
    skipped: list[str]
    """Phrases that name the files that are not read."""
    is_sampled: bool
    """True if nobody has read the source yet: its sizes are estimated from a sample."""
    digests: dict[str, str]
    """First digits of the sha256 of each file by its path in the source; empty for too many files."""
    packed_rows: int | None = None
    """Number of rows of packed documents; None: they are not packed, or not tokenised yet."""
    padding: float | None = None
    """Share of the places of packed rows that hold no token."""
    cut_documents: int | None = None
    """Number of documents that are longer than a packed row, and therefore cut."""


def file_digests(source: Source) -> dict[str, str]:
    """Return the digests of the files of a source by their path in it; empty for too many files."""
    files = source.files if len(source.files) <= MAX_DIGESTS else ()
    return short_digests({file.relative_to(source.folder).as_posix(): file_hash(file) for file in files})


def short_digests(digests: Mapping[str, str]) -> dict[str, str]:
    """Return the first digits of hashes by file; empty for too many files."""
    few = digests.items() if len(digests) <= MAX_DIGESTS else ()
    return {name: digest[:DIGITS] for name, digest in few}
