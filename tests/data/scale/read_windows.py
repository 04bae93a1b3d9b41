"""`python -m tests.data.scale.read_windows FILE`: reads batches, and prints the peak of its memory in MiB."""

import sys
from pathlib import Path

import numpy as np

from tests.data.scale.made_files import LENGTH, ROWS, sequence_of

sequence, draw = sequence_of(Path(sys.argv[1])), np.random.default_rng(0)
for _ in range(40):
    sequence.windows(draw.integers(0, len(sequence) - LENGTH, ROWS), LENGTH)
# Unlike getrusage, this line does not count what the parent took before it started this process.
status = Path("/proc/self/status").read_text().splitlines()
(peak,) = (line.split()[1] for line in status if line.startswith("VmHWM"))
print(int(peak) / 1024)
