import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.config.schema.data import SourceConfig
from harness.core.atomic_files import file_sha256
from harness.core.errors import UserError
from harness.data.text_sources.source import PACK, find_source
from harness.data.text_sources.split import is_heldout

from .conftest import documents, write

TEXTS = ["one\ntwo\r\nthree", "  naïve 漢字\t", "a line that says <|endoftext|> is no end", "last"]


def compress(path: Path, kind: str = "zstd", suffix: str = ".zst") -> Path:
    packed = path.with_name(path.name + suffix)
    with pa.CompressedOutputStream(str(packed), kind) as stream:
        stream.write(path.read_bytes())
    path.unlink()
    return packed


def jsonl(path: Path, texts: Sequence[str | None], column: str = "text") -> Path:
    path.write_text("".join(json.dumps({column: text, "n": 1}) + "\n" for text in texts) + "\n")
    return path


def parquet(path: Path, texts: Sequence[str | None], column: str = "text") -> Path:
    pq.write_table(pa.table({column: list(texts), "n": [1] * len(texts)}), path)
    return path


WRITERS = {
    "txt": lambda folder: write(folder / "a.txt", TEXTS),
    "txt.zst": lambda folder: compress(write(folder / "a.txt", TEXTS)),
    "jsonl": lambda folder: jsonl(folder / "a.jsonl", TEXTS),
    "jsonl.zst": lambda folder: compress(jsonl(folder / "a.jsonl", TEXTS)),
    "txt.gz": lambda folder: compress(write(folder / "a.txt", TEXTS), "gzip", ".gz"),
    "jsonl.gz": lambda folder: compress(jsonl(folder / "a.jsonl", TEXTS), "gzip", ".gz"),
    "json": lambda folder: jsonl(folder / "a.json", TEXTS),
    "json.gz": lambda folder: compress(jsonl(folder / "a.json", TEXTS), "gzip", ".gz"),
    "json.bz2": lambda folder: compress(jsonl(folder / "a.json", TEXTS), "bz2", ".bz2"),
    "txt.bz2": lambda folder: compress(write(folder / "a.txt", TEXTS), "bz2", ".bz2"),
    "parquet": lambda folder: parquet(folder / "a.parquet", TEXTS),
}


def read(path: Path, column: str = "text") -> list[str]:
    return list(find_source("s", SourceConfig(str(path), column=column)).documents())


@pytest.mark.parametrize("kind", WRITERS)
def test_each_kind_of_file_gives_the_same_documents(kind, tmp_path):
    assert read(WRITERS[kind](tmp_path)) == TEXTS


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path):
    (tmp_path / "b").mkdir()
    jsonl(tmp_path / "b" / "c.jsonl", ["third"])
    write(tmp_path / "a.txt", ["first", "second"])
    parquet(tmp_path / "d.parquet", ["fourth"])
    (tmp_path / "README.md").write_text("not a document")
    assert read(tmp_path) == ["first", "second", "third", "fourth"]


def test_another_column(tmp_path):
    assert read(jsonl(tmp_path / "a.jsonl", ["x"], "body"), "body") == ["x"]
    assert read(parquet(tmp_path / "a.parquet", ["x"], "body"), "body") == ["x"]


def test_documents_without_text_are_left_out(tmp_path):
    assert read(write(tmp_path / "a.txt", ["", "one", " \n", "two", ""])) == ["one", "two"]
    assert read(jsonl(tmp_path / "a.jsonl", [None, "one", ""])) == ["one"]
    assert read(parquet(tmp_path / "a.parquet", [None, "one", ""])) == ["one"]


def test_a_file_with_windows_line_ends_is_split_too(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\r\n<|endoftext|>\r\ntwo\r\n")
    assert [text.strip() for text in read(tmp_path / "a.txt")] == ["one", "two"]


def test_a_byte_order_mark_before_json_is_no_text(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "one"}\r\n{"text": "two"}\r\n')
    assert read(tmp_path / "a.jsonl") == ["one", "two"]


def test_a_byte_order_mark_within_a_file_is_told(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "one"}\n\xef\xbb\xbf{"text": "two"}\n')
    with pytest.raises(UserError, match=r"line 2 of a.jsonl is not a JSON object"):
        read(tmp_path / "a.jsonl")


def test_half_a_surrogate_pair_is_named_and_a_whole_one_is_text(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "\\ud83d\\ude80"}\n{"text": "x \\ude80"}\n')
    documents = find_source("s", SourceConfig(str(tmp_path / "a.jsonl"))).documents()
    assert [next(documents), next(documents)] == ["one", "\U0001f680"]
    with pytest.raises(UserError, match=r"line 3 of a.jsonl holds \\ude80, half of a surrogate pair"):
        next(documents)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_holding_out_depends_on_the_text_and_grows_with_the_share(text):
    held = [is_heldout(text, share) for share in (0.0, 0.1, 0.5, 0.9, 1.0)]
    assert held == sorted(held)
    assert (held[0], held[-1]) == (False, True)
    assert held == [is_heldout(text, share) for share in (0.0, 0.1, 0.5, 0.9, 1.0)]


def test_about_the_share_is_held_out():
    held = sum(is_heldout(text, 0.2) for text in documents("share", 5000))
    assert 880 < held < 1120  # 4.2 standard deviations


@pytest.mark.parametrize("name", ["prose", "code", "dictionary", "maths_qa"])
def test_the_pack_is_what_its_notice_says(name, tmp_path):
    plain = tmp_path / name
    plain.write_bytes(pa.CompressedInputStream(pa.OSFile(str(PACK / f"{name}.txt.zst")), "zstd").read())
    rows = [line.split("|") for line in (PACK / "NOTICE").read_text().splitlines()]
    (row,) = (row for row in rows if len(row) > 4 and row[1].strip() == f"{name}.txt.zst")
    size, count = (int(cell.replace(",", "")) for cell in row[3:5])
    assert f"{name:<10}  {file_sha256(plain)}" in (PACK / "NOTICE").read_text()
    assert plain.stat().st_size == size
    assert sum(1 for _ in find_source(name, SourceConfig(f"pack:{name}")).documents()) == count
