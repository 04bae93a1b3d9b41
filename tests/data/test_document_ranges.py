"""Documents of parts of a file: together they are those of the whole file, however it is cut."""

from __future__ import annotations

import io
import json
import re
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from harness.data.documents import split_text
from harness.data.documents.compressed import cut_segments
from harness.data.documents.read_documents import (
    documents_between,
    segment_documents,
)

LEAF, REACH = 48, 20
NAMES = ("text", "data.sources.s", "PATH")
PIECES = [b"<|endoftext|>", b"\n", b"\r\n", b"\n<|endoftext|>\n", b"\r\n<|endoftext|>\r\n", b"a", b"word ",
          "漢".encode(), "é".encode(), b"\xef\xbb\xbf", b"<|endof", b"x" * 30, b" " * LEAF]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join)
quick = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def small_leaves(monkeypatch):
    monkeypatch.setattr(split_text, "LEAF", LEAF)
    monkeypatch.setattr(split_text, "REACH", REACH)
    monkeypatch.setattr(split_text, "BLOCK", 7)


def separators(content: bytes) -> list[re.Match[bytes]]:
    """Lines that separate documents, found in the whole content at once."""
    return list(re.finditer(rb"(?:(?<=\n)|\A)<\|endoftext\|>\r*(?:\n|\Z)", content))


def cuts(content: bytes) -> Iterator[int]:
    """Places at which documents without separators are cut, by their definition."""
    begins = [line.start() for line in separators(content)]
    for edge in range(LEAF, len(content), LEAF):
        if any(edge - LEAF <= begin <= edge for begin in begins):
            continue
        window = content[edge : edge + REACH]
        if b"\n" in window:
            cut = edge + window.index(b"\n") + 1
        elif len(content) > edge + REACH:
            cut = len(content[: edge + REACH + 1].decode(errors="ignore").encode())
            cut = max(
                at
                for at in range(edge, edge + REACH + 1)
                if content[:at].decode(errors="ignore").encode() == content[:at]
            )
            cut += content.startswith(b"<|endoftext|>", cut)
        else:
            continue
        if cut < len(content):
            yield cut


def reference(content: bytes) -> list[str]:
    gaps = sorted(
        [(line.start(), line.end()) for line in separators(content)] + [(at, at) for at in cuts(content)]
    )
    begins, ends = [0, *(begin for _, begin in gaps)], [*(end for end, _ in gaps), len(content)]
    return [content[begin:end].decode().removesuffix("\n") for begin, end in zip(begins, ends, strict=True)]


def lines_of_a_text(content: bytes) -> list[str]:
    """Documents as they were read before there were ranges: line by line, from the begin to the end."""
    texts, part = [], ""
    for line in io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", newline="\n"):
        if line.rstrip("\r\n") == "<|endoftext|>":
            texts.append(part.removesuffix("\n"))
            part = ""
        else:
            part += line
    return [*texts, part.removesuffix("\n")]


def ranges(size: int, places: list[int]) -> list[tuple[int, int]]:
    inner = sorted({place * LEAF for place in places if 0 < place * LEAF < size})
    return list(zip([0, *inner], [*inner, size], strict=True))


@given(TEXTS, st.lists(st.integers(0, 12)))
@example(b"\xef\xbb\xbf<|endoftext|>\na", [])
@example(b"a" * (LEAF - 14) + b"\n<|endoftext|>\nb", [1])
@example(b"a" * (LEAF - 10) + b"\n<|endoftext|>\nb", [1])
@example(b"a" * (LEAF - 1) + b"\n<|endoftext|>\nb", [1])
@example(b"a" * (LEAF + REACH) + b"<|endoftext|>\nb", [1])
@example("漢".encode() * 2 * LEAF, [1, 2, 3])
@quick
def test_ranges_of_a_text_together_are_its_documents(tmp_path, content, places):
    (file := tmp_path / "a.txt").write_bytes(content)
    parts = [documents_between(file, *NAMES, *part) for part in ranges(len(content), places)]
    assert [text for part in parts for text in part] == reference(content)
    if not list(cuts(content)):
        assert reference(content) == lines_of_a_text(content)


LINES = st.lists(
    st.sampled_from([*(json.dumps({"text": text}).encode() for text in ("", "one", "漢" * 9, "two\n")),
                     '{"text": "漢字"}'.encode(), b"", b"  ", b"\r"]),
    max_size=20,
)  # fmt: skip


@given(LINES, st.booleans(), st.booleans(), st.lists(st.integers(0, 400)))
@quick
def test_ranges_of_json_lines_are_cut_anywhere(tmp_path, lines, has_mark, ends_line, places):
    content = b"\xef\xbb\xbf" * has_mark + b"\n".join(lines) + b"\n" * ends_line
    (file := tmp_path / "a.jsonl").write_bytes(content)
    cuts = [0, *sorted(place for place in places if place < len(content)), len(content)]
    parts = [documents_between(file, *NAMES, *part) for part in pairwise(cuts)]
    texts = [json.loads(line)["text"] for line in lines if line.strip()]
    assert [text for part in parts for text in part] == texts


@given(TEXTS, st.integers(1, 200))
@example(b"a" * (LEAF + REACH) + b"<|endoftext|>\nb", 1)
@quick
def test_segments_of_a_text_hold_its_documents(tmp_path, content, size):
    segments = list(cut_segments(io.BytesIO(content), False, size))
    file = tmp_path / "a.txt.gz"
    texts = [list(segment_documents(file, *NAMES, segment, 0)) for segment in segments]
    assert [text for part in texts for text in part] == reference(content)
    assert all(len(segment) > size - 15 for segment in segments[:-1])
    for segment, documents in zip(segments, texts, strict=True):
        assert lines_of_a_text(segment) == documents


class CountingStream(io.BytesIO):
    num_read = 0

    def read(self, size=-1, /):
        block = super().read(size)
        self.num_read += len(block)
        return block


def test_a_range_reads_itself_and_a_short_look_back(monkeypatch):
    monkeypatch.setattr(split_text, "LEAF", 10_000)
    content = b"some words\n<|endoftext|>\n" * 4000
    stream = CountingStream(content)
    assert len(list(split_text.split_text(stream, 50_000, 60_000))) == 400
    assert stream.num_read < 10_100


@pytest.mark.parametrize("block", [b"words and words\n", b"words and words "])
def test_a_text_without_separators_takes_little_memory(monkeypatch, block):
    monkeypatch.setattr(split_text, "LEAF", 2**20)
    monkeypatch.setattr(split_text, "REACH", 2**10)
    monkeypatch.setattr(split_text, "BLOCK", 2**16)
    content = block * 2**20
    tracemalloc.start()
    sizes = [len(document) for document in split_text.split_text(io.BytesIO(content))]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(sizes), max(sizes) < 2**21 + 2**11, peak < 2**23) == (16, True, True)
