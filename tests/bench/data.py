"""Data against the plainest ways to read them.

`python -m tests.bench.data FOLDER` prints JSON, a list by round: seconds for a batch of random windows of a
file of tokens, by each way, from a cold and from a warm page cache; seconds to tokenise a text, and to open
its tokens again.
"""

from __future__ import annotations

import functools
import json
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from harness.data.codecs.tokenizer_file import SHIPPED_TOKENIZER
from tests.data.scale.made_files import forget, sequence_of, write_text, write_tokens

TOKENS, WINDOWS, LENGTH, ROUNDS = 2**28, 256, 1025, 5
TEXT_ROUNDS = 3
TEXT_BYTES = 2**26 + 2**20
Gather = Callable[[np.ndarray], object]
Way = Callable[[Path], Gather]


def main(folder: Path) -> None:
    print(json.dumps({**read(folder), **tokenise(folder)}))


def read(folder: Path) -> dict[str, list[float]]:
    """Return seconds of each way to gather windows, cold and warm: other windows in each round."""
    path = write_tokens(folder / "tokens.bin", TOKENS)
    draw, times = np.random.default_rng(0), dict[str, list[float]]()
    for _ in range(ROUNDS):
        start_B = draw.integers(0, TOKENS - LENGTH, WINDOWS)
        for name, way in WAYS.items():
            forget(path)
            for state, taken in zip(("cold", "warm"), seconds_of(way, path, start_B), strict=True):
                times.setdefault(f"{name}, {state}", []).append(taken)
    path.unlink()
    return times


def seconds_of(way: Way, path: Path, start_B: np.ndarray) -> list[float]:
    """Return the seconds of a first and a second call. A map ends then: mapped pages stay in memory."""
    gather = way(path)
    return [seconds(lambda: gather(start_B)) for _ in range(2)]


def by_harness(path: Path) -> Gather:
    sequence = sequence_of(path)
    return lambda start_B: sequence.windows(start_B, LENGTH)


def by_map(path: Path, advice: int = mmap.MADV_NORMAL) -> Gather:
    with path.open("rb") as file:
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    memory.madvise(advice)
    tokens = np.frombuffer(memory, np.uint16)
    return lambda start_B: tokens[start_B[:, None] + np.arange(LENGTH)].astype(np.int32)


def by_threads(path: Path) -> Gather:
    """Return a function that reads by 16 threads and keeps nothing."""
    file, pool = path.open("rb"), ThreadPoolExecutor(16)
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
    return lambda start_B: [
        *pool.map(lambda start: os.pread(file.fileno(), 2 * LENGTH, 2 * start), start_B.tolist())
    ]


WAYS: dict[str, Way] = {
    "harness": by_harness,
    "memory map": by_map,
    "memory map, MADV_RANDOM": functools.partial(by_map, advice=mmap.MADV_RANDOM),
    "16 threads": by_threads,
}


def tokenise(folder: Path) -> dict[str, list[float]]:
    """Return seconds to tokenise a text by the library and by the harness, and to open it again."""
    path = write_text(folder / "text.txt", TEXT_BYTES)
    modules = {"library": "encode_text", "harness": "open_source", "opened again": "open_source"}
    times: dict[str, list[float]] = {name: [] for name in modules}
    for index in range(TEXT_ROUNDS):
        environment = os.environ | {"AB_HARNESS_CACHE": str(folder / f"text-cache{index}")}
        for name, module in modules.items():
            command = [sys.executable, "-m", f"tests.data.scale.{module}", str(path), str(SHIPPED_TOKENIZER)]
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            times[name].append(json.loads(done.stdout.splitlines()[-1])["seconds"])
    return times


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


if __name__ == "__main__":
    main(Path(sys.argv[1]))
