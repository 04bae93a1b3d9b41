"""Sequences of tokens are read by many threads at once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from harness.data.tokens import token_sequence
from harness.data.tokens.token_sequence import TokenFile, TokenSequence


def test_a_file_stays_open_while_a_thread_reads_it(tmp_path):
    """Other threads open the same files at once, and drop them from the open ones."""
    parts = []
    for number in range(4):
        tokens = np.full(1000, number, np.uint16)
        tokens.tofile(tmp_path / f"{number}.bin")
        parts.append(TokenFile(tmp_path / f"{number}.bin", 0, tokens.dtype, len(tokens)))
    sequence, ended = TokenSequence.of_parts(parts), threading.Event()

    def forget():
        while not ended.is_set():
            token_sequence._open.cache_clear()

    def read(seed):
        draw = np.random.default_rng(seed)
        for _ in range(300):
            starts = draw.integers(0, 3990, 16)
            assert (sequence.windows(starts, 10)[:, 0] == starts // 1000).all()

    dropper = threading.Thread(target=forget)
    dropper.start()
    try:
        with ThreadPoolExecutor(8) as pool:
            assert [*pool.map(read, range(8))] == [None] * 8
    finally:
        ended.set()
        dropper.join()
