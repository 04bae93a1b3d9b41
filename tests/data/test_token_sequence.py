"""Sequences of tokens are read by many threads at once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from harness.data.tokens import token_sequence
from harness.data.tokens.token_sequence import TokenFile, TokenSequence


def test_two_threads_that_open_a_file_at_once_both_read_it(tmp_path, monkeypatch):
    """Of two that open it, one stays among the open ones; the other lasts as long as it is read."""
    both, open_file = threading.Barrier(2), token_sequence._OpenFile

    def open_together(path):
        both.wait(timeout=10)
        return open_file(path)

    monkeypatch.setattr(token_sequence, "_OpenFile", open_together)
    tokens = np.arange(1000, dtype=np.uint16)
    tokens.tofile(tmp_path / "tokens.bin")
    sequence = TokenSequence.of_parts([TokenFile(tmp_path / "tokens.bin", 0, tokens.dtype, 1000)])
    with ThreadPoolExecutor(2) as pool:
        rows = [*pool.map(lambda start: sequence.windows(np.array([start]), 5)[0].tolist(), (10, 500))]
    assert rows == [[*range(10, 15)], [*range(500, 505)]]
