"""Batches of a corpus that does not lie in memory: as fast as the disk, in the same memory at any size."""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.data.scale.conftest import SIZE
from tests.data.scale.made_files import LENGTH, ROOT, ROWS, forget, sequence_of, starts, write_tokens

pytestmark = pytest.mark.slow
BATCHES, ROUNDS = 8, 5
THREADS = (1, 4, 16, 32)
Gather = Callable[[np.ndarray], object]


def seconds(gather: Gather, path: Path, batches: Sequence[np.ndarray]) -> float:
    """Time batches from a cold page cache."""
    forget(path)
    begin = time.perf_counter()
    for start_B in batches:
        gather(start_B)
    return time.perf_counter() - begin


def raw_reader(path: Path, threads: int) -> Gather:
    """Return a function that reads the ranges of a batch with `pread` and keeps none."""
    descriptor, pool = os.open(path, os.O_RDONLY), ThreadPoolExecutor(threads)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)

    def read(start: int) -> int:
        return len(os.pread(descriptor, 2 * LENGTH, 2 * start))

    return lambda start_B: [*pool.map(read, start_B.tolist())]


def test_batches_come_as_fast_as_the_disk_reads(folder, needs_bytes):
    needs_bytes(SIZE)
    path = write_tokens(folder / "tokens.bin", SIZE // 2)
    sequence = sequence_of(path)
    contenders: dict[str, Gather] = {"windows": lambda start_B: sequence.windows(start_B, LENGTH)}
    contenders |= {f"{threads} threads": raw_reader(path, threads) for threads in THREADS}
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for round_ in range(ROUNDS):
        batches = [*itertools.islice(starts(round_, len(sequence), ROWS, LENGTH), BATCHES)]
        turn = round_ % len(contenders)  # each comes first once
        for name, gather in [*contenders.items()][turn:] + [*contenders.items()][:turn]:
            taken[name].append(seconds(gather, path, batches))
    medians = {name: statistics.median(times) for name, times in taken.items()}
    rates = {name: BATCHES * ROWS * LENGTH / value / 1e6 for name, value in medians.items()}
    print("\nMtokens/s, cold:", {name: round(rate) for name, rate in rates.items()})
    assert rates.pop("windows") >= 0.8 * max(rates.values())


def test_a_reader_takes_the_same_memory_at_any_size(folder, needs_bytes):
    needs_bytes(SIZE)
    peaks = []
    for size in (SIZE // 10, SIZE):
        path = write_tokens(folder / f"{size}.bin", size // 2)
        command = [sys.executable, "-m", "tests.data.scale.read_windows", str(path)]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        peaks.append(float(done.stdout))
        path.unlink()
    print("\npeak MiB of a reader:", peaks)
    assert peaks[1] < 1.05 * peaks[0]
