"""N-grams of windows are found in a text as a set of tuples finds them."""

import random

import numpy as np
import pytest

from harness.data.evaluation import ngrams
from harness.data.evaluation.ngrams import NgramIndex, ngram_hashes
from harness.data.tokens.token_sequence import TokenFile, TokenSequence


@pytest.fixture
def sequence(tmp_path):
    """A sequence of the tokens of several files of different types."""

    def make(*arrays):
        parts = []
        for number, array in enumerate(arrays):
            path = tmp_path / f"{number}.bin"
            array.tofile(path)
            parts.append(TokenFile(path, 0, array.dtype, len(array)))
        return TokenSequence.of_parts(parts)

    return make


def tuples(tokens, length):
    return [tuple(tokens[start : start + length].tolist()) for start in range(len(tokens) - length + 1)]


@pytest.mark.parametrize("length", [1, 2, 3, 7, 8, 13, 50])
def test_equal_ngrams_and_no_others_have_one_hash(length):
    tokens = np.random.default_rng(0).integers(0, 3, 4000).astype(np.uint16)
    names: dict[tuple, int] = {}
    for hashed, ngram in zip(ngram_hashes(tokens, length).tolist(), tuples(tokens, length), strict=True):
        assert names.setdefault(ngram, hashed) == hashed
    assert len({*names.values()}) == len(names)


@pytest.mark.parametrize("length", [1, 5, 13])
def test_it_finds_what_a_set_of_tuples_finds(sequence, monkeypatch, length):
    monkeypatch.setattr(ngrams, "BLOCK_TOKENS", 37)
    monkeypatch.setattr("harness.data.tokens.token_sequence.RUN_TOKENS", 101)
    draw = np.random.default_rng(length)
    text = draw.integers(0, 2 if length > 5 else 30, 5000)
    pieces = np.split(text, [3, 4, 1200, 1201, 3000])
    held = np.stack([draw.integers(0, 2 if length > 5 else 30, 40) for _ in range(20)]).astype(np.int32)
    held[3], held[7, 5:25] = text[980:1020], text[1190:1210]  # over the end of a run, and of a file
    dtypes = (np.uint16, np.int64, np.uint32, np.uint16, np.int32, np.uint16)
    parts = [piece.astype(dtype) for piece, dtype in zip(pieces, dtypes, strict=True)]
    found = NgramIndex.of_windows(held, length).find_in(sequence(*parts), "x")
    in_text = {*tuples(text, length)}
    assert found.tolist() == [[ngram in in_text for ngram in tuples(row, length)] for row in held]
    assert 0 < found.mean() <= 1


def test_an_ngram_that_shares_only_the_hash_is_not_found(sequence, monkeypatch):
    monkeypatch.setattr(ngrams, "ngram_hashes", lambda tokens, n: np.zeros(len(tokens) - n + 1, np.uint64))
    held = np.arange(12, dtype=np.int32).reshape(1, 12)
    index = NgramIndex.of_windows(held, 12)
    other = np.arange(1, 13, dtype=np.uint16)
    assert not index.find_in(sequence(other), "x").any()
    assert index.find_in(sequence(other, np.arange(12, dtype=np.uint16)), "x").all()


def test_a_text_shorter_than_an_ngram_holds_none(sequence):
    index = NgramIndex.of_windows(np.zeros((2, 20), np.int32), 13)
    assert not index.find_in(sequence(np.zeros(12, np.uint16)), "x").any()
    assert not index.find_in(sequence(), "x").any()
    assert index.find_in(sequence(np.zeros(13, np.uint16)), "x").all()


def test_memory_does_not_grow_with_the_text(sequence):
    import tracemalloc

    peaks = []
    held = np.array([random.Random(0).choices(range(500), k=1025)], np.int32)
    for size in (10_000_000, 30_000_000):
        text = sequence(np.random.default_rng(1).integers(0, 500, size).astype(np.uint16))
        tracemalloc.start()
        NgramIndex.of_windows(held, 13).find_in(text, "x")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
