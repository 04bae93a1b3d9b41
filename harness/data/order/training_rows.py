"""Rows that a source is trained on: windows of its concatenated documents, or rows of whole ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Int32, Int64

from harness.config.schema.data import DataConfig, Order, Packing
from harness.core.errors import UserError
from harness.data.order.curriculum import mean_document_lengths
from harness.data.order.packed_rows import PackedRows, open_packed_rows
from harness.data.tokens.token_sequence import TokenSequence
from harness.data.tokens.tokens import Tokens


@dataclass(frozen=True)
class Windows:
    """A sequence of tokens, cut into windows of length + 1 tokens."""

    tokens: TokenSequence
    length: int
    start_D: Int64[np.ndarray, " D"] | None = None
    """Place of the first token of each document; None: not known."""

    def __len__(self) -> int:
        return max(0, (len(self.tokens) - 1) // self.length)

    def __getitem__(self, window_B: Int[np.ndarray, " B"]) -> Int32[np.ndarray, "B T+1"]:
        start_B = np.asarray(window_B, np.int64) * self.length
        return self.tokens.windows(start_B, self.length + 1)

    def document_lengths(self, window_B: Int[np.ndarray, " B"]) -> np.ndarray:
        """Return the mean length of each window's documents, of which a part may lie outside."""
        assert self.start_D is not None
        first_B = np.asarray(window_B, np.int64) * self.length
        return mean_document_lengths(self.start_D, len(self.tokens), first_B, self.length + 1)


TrainingRows = Windows | PackedRows


def open_rows(tokens: Tokens, config: DataConfig, where: str) -> TrainingRows:
    """Return the training rows of a source. `where`: its config key and path. Raises UserError if a config
    needs to know where documents begin, and nothing tells."""
    if config.packing is Packing.best_fit:
        return open_packed_rows(tokens, config.sequence_length, where)
    if config.order is Order.length and tokens.starts_D is None:
        raise UserError(
            f"data.order=length needs documents, but nothing tells where those of {where} begin. Set "
            "data.end_token to the token that ends one, or set data.order=random."
        )
    return Windows(tokens.train, config.sequence_length, tokens.starts_D)
