"""Best-fit packing: every token once, documents whole, as item-by-item packing would do it."""

from __future__ import annotations

from bisect import bisect_left, insort
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core.errors import UserError
from harness.data.order import packed_rows
from harness.data.order.best_fit import cut_documents, pack_best_fit
from harness.data.order.packed_rows import PackedRows, open_packed_rows
from harness.data.tokens.token_sequence import TokenFile, TokenSequence
from harness.data.tokens.tokens import Tokens

T = 16
SOURCE = "data.sources.a.path=a.txt"


def tokens_of(folder: Path, length_D: np.ndarray, key: str = "tokens") -> Tokens:
    """Tokens 0, 1, 2, ... in documents of these lengths, in two files."""
    count, parts = int(length_D.sum()), []
    for index, part in enumerate(np.array_split(np.arange(count, dtype=np.uint32), 2)):
        file = folder / f"{key}-{index}.bin"
        part.tofile(file)
        parts.append(TokenFile(file, 0, part.dtype, len(part)))
    train = TokenSequence.of_parts(parts)
    return Tokens(key, train, train, np.cumsum(length_D) - length_D)


def lengths(count: int, seed: int = 0, mean: float = 2.0) -> np.ndarray:
    return np.maximum(1, np.random.default_rng(seed).lognormal(mean, 1.0, count)).astype(np.int64)


def rows_of(packed: PackedRows) -> np.ndarray:
    return packed[np.arange(len(packed))]


def best_fit_by_item(length_P: np.ndarray, row_length: int) -> list[list[int]]:
    """Place one piece after another, the longest first, where the least room is left."""
    rooms: list[tuple[int, int]] = []
    rows: list[list[int]] = []
    for length in sorted(length_P.tolist(), reverse=True):
        index = bisect_left(rooms, (length, -1))
        room, row = rooms.pop(index) if index < len(rooms) else (row_length, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(length)
        insort(rooms, (room - length, row))
    return rows


@settings(max_examples=60, deadline=None)
@given(row_length=st.integers(1, 40), draw=st.data())
def test_rows_are_those_of_packing_one_after_another(row_length, draw):
    pieces = draw.draw(st.lists(st.integers(1, row_length), min_size=1, max_size=150))
    length_P = np.array(pieces)
    row_P = pack_best_fit(length_P, row_length)
    rows = best_fit_by_item(length_P, row_length)
    # Which of two rows with equal room is taken changes no later room.
    assert sorted(np.bincount(row_P, length_P).tolist()) == sorted(map(sum, rows))
    firsts = [int(np.flatnonzero(row_P == row)[0]) for row in range(len(rows))]
    assert firsts == sorted(firsts), "rows are numbered by their first piece, so neighbours stay near"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 50), max_size=30), st.integers(1, 20))
def test_documents_are_cut_into_rows_and_a_rest(document_lengths, row_length):
    length_D = np.array(document_lengths, np.int64)
    start_D = np.cumsum(length_D) - length_D
    found = zip(*(array.tolist() for array in cut_documents(start_D, length_D, row_length)), strict=True)
    expected = [
        (start + first, min(row_length, length - first))
        for start, length in zip(start_D.tolist(), length_D.tolist(), strict=True)
        for first in range(0, length, row_length)
    ]
    assert [*found] == expected


@pytest.mark.parametrize("block", [1, 7, 64, 2**18])
def test_every_token_is_in_one_row_and_documents_stay_whole(tmp_path, monkeypatch, block):
    monkeypatch.setattr(packed_rows, "BLOCK_DOCUMENTS", block)
    length_D = lengths(200)
    packed = open_packed_rows(tokens_of(tmp_path, length_D), T, SOURCE)
    rows = rows_of(packed)
    assert rows.shape == (len(packed), T + 1)
    assert sorted(rows[rows >= 0].tolist()) == list(range(length_D.sum()))
    is_empty = rows < 0
    assert np.array_equal(is_empty, np.sort(is_empty, axis=1)), "what is empty is the end of a row"
    row_of = {token: row for row, values in enumerate(rows.tolist()) for token in values}
    for start, length in zip(np.cumsum(length_D) - length_D, length_D, strict=True):
        assert len({row_of[token] for token in range(start, start + length)}) == -(-length // (T + 1))
    facts = packed.facts
    assert (facts.tokens, facts.documents) == (length_D.sum(), 200)
    assert facts.cut == (length_D > T + 1).sum() > 0
    assert facts.padding == pytest.approx(is_empty.mean())


def test_rows_may_be_asked_in_any_order_and_twice(tmp_path):
    length_D = lengths(200)
    packed = open_packed_rows(tokens_of(tmp_path, length_D), T, SOURCE)
    rows, asked = rows_of(packed), np.array([5, 0, 5, len(packed) - 1])
    assert np.array_equal(packed[asked], rows[asked])
    assert packed[asked[:0]].shape == (0, T + 1)
    _, length_P = cut_documents(np.cumsum(length_D) - length_D, length_D, T + 1)
    piece_N = np.repeat(np.arange(len(length_P)), length_P)
    longest = [np.bincount(piece_N[row[row >= 0]]).max() for row in rows[asked]]
    assert packed.document_lengths(asked).tolist() == longest


def test_few_places_stay_empty_and_fewer_documents_are_cut_than_by_concatenation(tmp_path):
    length_D = lengths(20_000, mean=4.0)
    facts = open_packed_rows(tokens_of(tmp_path, length_D), 255, SOURCE).facts
    end_D = np.cumsum(length_D)
    cut_by_windows = np.sum((end_D - length_D) // 255 != (end_D - 1) // 255)
    assert facts.padding < 0.01
    assert facts.cut < cut_by_windows / 3


def test_a_plan_is_made_once_and_again_if_its_files_are_not_whole(tmp_path, monkeypatch, cache):
    tokens = tokens_of(tmp_path, lengths(200))
    expected = rows_of(open_packed_rows(tokens, T, SOURCE))
    built, build = [], packed_rows._build
    monkeypatch.setattr(packed_rows, "_build", lambda *inputs: built.append(1) or build(*inputs))
    assert np.array_equal(rows_of(open_packed_rows(tokens, T, SOURCE)), expected)
    assert not built
    (file,) = cache.glob("tokens/*/length_P")
    file.write_bytes(file.read_bytes()[:-4])
    assert np.array_equal(rows_of(open_packed_rows(tokens, T, SOURCE)), expected)
    assert len(built) == 1
    open_packed_rows(tokens, T + 1, SOURCE)
    open_packed_rows(tokens_of(tmp_path, lengths(200, 1), "others"), T, SOURCE)
    assert len(built) == 3


def test_tokens_without_documents_are_not_packed(tmp_path):
    tokens = tokens_of(tmp_path, lengths(20))
    with pytest.raises(UserError, match=r"data.packing=best_fit .* data.sources.a.path=a.txt .* Set .*\.$"):
        open_packed_rows(Tokens("k", tokens.train, tokens.heldout, None), T, SOURCE)
