"""Summary of a validation set, for the lines that a launch prints and for the records of its runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SetSummary:
    """Files and sizes of a validation set; equal fields make up `records.run.provenance.SetFacts`."""

    content: str
    """Hash of the documents and their order."""
    files: int
    tokens: int
    """Number of tokens that are evaluated."""
    available: int
    """Number of tokens of the whole set."""
    is_estimate: bool
    """True if the set is not tokenised or not compared yet, so that these numbers are estimated."""
    ngram: int
    """Length of the n-grams by which the set was compared with the training text; 0: it was not."""
    left_out_share: float | None
    """Share of its windows that stand in the training text and are left out; None: not known yet."""
    touched_share: float | None
    """Share of its windows that have any n-gram in common with the training text; None: not known yet."""
