"""The machine's matrix-product ceiling: float32 numpy, 2048 x 2048. Prints seconds a TFLOP as JSON."""

import json
import sys
import time

import numpy as np

a, b = np.random.default_rng(0).standard_normal((2, 2048, 2048), np.float32)
times = []
for _ in range(int(sys.argv[1])):
    start = time.perf_counter()
    np.matmul(a, b)
    times.append((time.perf_counter() - start) / (2 * 2048**3 / 1e12))
print(json.dumps(times[1:]))
