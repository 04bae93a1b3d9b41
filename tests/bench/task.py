"""The task of the bench: one training step of a decoder of width 256 with 6 layers, float32.

With the three matrices of SwiGLU that is 6.3M parameters; every contender trains the same.
"""

import numpy as np

WIDTH, LAYERS, HEADS, FFN, LENGTH, BATCH, VOCABULARY = 256, 6, 4, 1024, 256, 16, 512

FLOPS = 6 * BATCH * LENGTH * (LAYERS * (4 * WIDTH**2 + 3 * WIDTH * FFN) + WIDTH * VOCABULARY)
FLOPS += 6 * BATCH * LENGTH * LAYERS * 2 * WIDTH * (LENGTH + 1) // 2
"""Model FLOPs of one step (causal attention): the same yardstick for every contender."""


def tokens() -> np.ndarray:
    return np.random.default_rng(0).integers(0, VOCABULARY, (BATCH, LENGTH + 1), dtype=np.int32)
