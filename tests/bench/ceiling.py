"""The machine's matrix-product ceiling: a step is one float32 product of numpy, 2048 x 2048."""

import numpy as np

from tests.bench.contender import answer_steps

SIZE = 2048
FLOPS = 2 * SIZE**3

if __name__ == "__main__":
    a, b = np.random.default_rng(0).standard_normal((2, SIZE, SIZE), np.float32)
    answer_steps(lambda: np.matmul(a, b))
