"""Encoding of a source: tokenizer and split."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from harness.data.codecs.codec import Codec
from harness.data.text_sources.split import Split


@dataclass(frozen=True)
class Encoding:
    """Everything besides the documents that decides the tokens of a source."""

    tokenizer: str
    """Value of `data.tokenizer`, from which another process loads the codec."""
    codec: Codec
    holdout: float
    split: Split = Split.documents

    def with_split(self, split: Split) -> Encoding:
        """Return the same encoding of text that is divided in another way."""
        return dataclasses.replace(self, split=split)
