"""Training and held-out tokens of a source."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from harness.data.tokens.token_sequence import TokenSequence


@dataclass(frozen=True)
class Tokens:
    """Tokens of both splits. The token that ends a document follows each, where there is one."""

    key: str
    """Hash of everything that the tokens depend on."""
    train: TokenSequence
    heldout: TokenSequence
    starts_D: Int64[np.ndarray, " D"] | None
    """Place in `train` of the first token of each document, rising, memory-mapped; None if nothing tells
    where documents begin."""
