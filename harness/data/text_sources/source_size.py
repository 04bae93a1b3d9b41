"""Sizes of a source and of its splits."""

from __future__ import annotations

from dataclasses import dataclass

from harness.data.text_sources.split import Split


@dataclass(frozen=True)
class SplitSize:
    """Size of one split."""

    documents: int
    bytes: int
    """UTF-8 bytes of text; 0 where the tokens' text is not known."""
    tokens: int | None = None
    """None: not counted yet."""


@dataclass(frozen=True)
class SourceSizes:
    """Sizes of a source's training and held-out text."""

    train: SplitSize
    heldout: SplitSize
    split: Split = Split.documents
    is_sampled: bool = False
    """True if nobody has read the source yet: its sizes are estimated from a sample."""

    @property
    def documents(self) -> int:
        """Number of documents; a tail belongs to the document from which it was cut."""
        held_out = 0 if self.split is Split.tails else self.heldout.documents
        return self.train.documents + held_out

    @property
    def heldout_share(self) -> float:
        """Share of the text that is held out, by bytes or, where they are not known, by tokens."""
        train, heldout = (side.bytes or side.tokens or 0 for side in (self.train, self.heldout))
        return heldout / max(1, train + heldout)
