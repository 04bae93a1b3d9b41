"""The task of the bench: one training step of a decoder of width 256 with 6 layers.

With the three matrices of SwiGLU that is 6.3M parameters; every contender trains the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Shape:
    """Shape of a decoder with SwiGLU, and of its batch."""

    width: int
    layers: int
    heads: int
    ffn: int
    length: int
    """Tokens of a sequence."""
    batch: int
    """Sequences of a batch."""
    vocabulary: int = 512

    @property
    def flops(self) -> int:
        """Model FLOPs of one step (causal attention): the same yardstick for every contender."""
        tokens = self.batch * self.length
        weights = self.layers * (4 * self.width**2 + 3 * self.width * self.ffn) + self.width * self.vocabulary
        return 6 * tokens * weights + 6 * tokens * self.layers * 2 * self.width * (self.length + 1) // 2

    def tokens(self) -> np.ndarray:
        """Return random tokens, int32 [batch, length + 1]."""
        rng = np.random.default_rng(0)
        return rng.integers(0, self.vocabulary, (self.batch, self.length + 1), dtype=np.int32)


BENCH = Shape(width=256, layers=6, heads=4, ffn=1024, length=256, batch=16)
SCALE_M = Shape(width=32, layers=4, heads=1, ffn=86, length=128, batch=16)
"""The largest scale of `make demo`."""
SHAPES = {"bench": BENCH, "m": SCALE_M}
