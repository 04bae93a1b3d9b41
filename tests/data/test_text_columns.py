"""Columns as people have them: nested, encoded, and those that are no text, each named in one sentence."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.config.schema.data import SourceConfig
from harness.core.errors import UserError
from harness.data.documents import json_lines, parquet_rows
from harness.data.documents.read_documents import documents_between, row_group_documents, row_group_sizes
from harness.data.text_sources.source import find_source

NAMES = ("text", "data.sources.s", "PATH")


def read(path: Path, column: str = "text") -> list[str]:
    return list(find_source("s", SourceConfig(str(path), column=column)).documents())


def said(path: Path, column: str = "text") -> str:
    with pytest.raises(UserError) as caught:
        read(path, column)
    return str(caught.value).replace(str(path), "PATH")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    columns = {
        "meta": pa.array([{"text": "one", "n": 1}, None, {"text": None, "n": 2}, {"text": "four", "n": 3}]),
        "deep": pa.array([{"a": {"b": text}} for text in "wxyz"]),
        "dictionary": pa.array(["a", "b", "a", None]).dictionary_encode(),
        "large": pa.array(["a", "b", "a", None], pa.large_string()),
        "view": pa.array(["a", "b", "a", None], pa.string_view()),
        "dotted.name": pa.array(["p", "q", "r", "s"]),
        "nulls": pa.nulls(4),
        "bytes": pa.array([b"a"] * 4),
        "number": pa.array([1, 2, 3, 4]),
        "turns": pa.array([[{"text": "a"}, {"text": "b"}]] * 4),
        "lines": pa.array([["a", "b"]] * 4),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", row_group_size=2)
    return tmp_path / "a.parquet"


@pytest.mark.parametrize(
    ("column", "texts"),
    {
        "meta.text": ["one", "four"],
        "deep.a.b": ["w", "x", "y", "z"],
        "dictionary": ["a", "b", "a"],
        "large": ["a", "b", "a"],
        "view": ["a", "b", "a"],
        "dotted.name": ["p", "q", "r", "s"],
    }.items(),
)
def test_texts_of_every_type_of_parquet(table, column, texts):
    assert read(table, column) == texts


def test_a_column_whose_name_has_a_dot_wins(tmp_path):
    columns = {"a": [{"b": "nested"}], "a.b": ["literal"]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text(json.dumps({name: value[0] for name, value in columns.items()}))
    assert read(tmp_path / "a.parquet", "a.b") == read(tmp_path / "a.jsonl", "a.b") == ["literal"]


TEXTS = "meta.text, deep.a.b, dictionary, large, view, dotted.name"


@pytest.mark.parametrize(
    ("column", "kind"),
    {
        "nulls": f"nothing but nulls in a.parquet of PATH: name a column of text ({TEXTS})",
        "bytes": f"binary in a.parquet of PATH: name a column of text ({TEXTS})",
        "number": f"int64 in a.parquet of PATH: name a column of text ({TEXTS})",
        "meta": f"struct in a.parquet of PATH: name a column of text ({TEXTS})",
        "turns.text": "a list in a.parquet of PATH: a row must have one text. Join the texts of each row, or "
        "name another column.",
        "lines": "a list in a.parquet of PATH: a row must have one text. Join the texts of each row, or name "
        "another column.",
    }.items(),
)
def test_columns_of_parquet_without_text_are_named(table, column, kind):
    assert said(table, column) == f"data.sources.s.column={column} holds {kind}"


def test_a_column_that_is_not_there_is_guessed(table):
    assert said(table, "meta.txt").endswith("in a.parquet of PATH: did you mean 'meta.text'?")
    assert said(table, "text").startswith("data.sources.s.column=text is not in a.parquet of PATH: ")


def test_nested_json(tmp_path):
    rows = [{"a": {"b": "one"}}, {"a": None}, {"a": {"b": None}}, {"a": {"b": "four", "c": 1}}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read(tmp_path / "a.jsonl", "a.b") == ["one", "four"]
    assert said(tmp_path / "a.jsonl", "a.x").startswith(
        "data.sources.s.column=a.x is not in line 1 of a.jsonl"
    )
    (tmp_path / "b.jsonl").write_text('{"a": {"b": "one"}}\n{"a": [{"b": "two"}]}\n')
    assert said(tmp_path / "b.jsonl", "a.b").startswith(
        "data.sources.s.column=a.b holds a list in line 2 of b.jsonl of PATH: a row must have one text."
    )


@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_an_array_named_as_lines_is_told_how_to_become_lines(tmp_path, suffix):
    array, file = [{"text": "a"}, {"text": "b"}], tmp_path / f"a.{suffix}"
    for indent in (None, 1):
        file.write_text(json.dumps(array, indent=indent))
        problem = f"line 1 of a.{suffix} is not a JSON object: the file is one array, and must have a line"
        way_out = f"Write them with `jq -c '.[]' a.{suffix} > lines-a.{suffix}`."
        assert said(file) == f"data.sources.s.path=PATH: {problem} for each object. {way_out}"
    file.with_suffix(f".{suffix}.gz").write_bytes(gzip.compress(file.read_bytes()))
    assert "with `gzip -dc a." in said(file.with_suffix(f".{suffix}.gz"))
    file.write_text(json.dumps(array[0], indent=1))
    assert f"Write it so with `jq -c '.' a.{suffix} > lines-a.{suffix}`." in said(file)


def test_a_bad_line_is_numbered_in_whichever_part_it_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(json_lines, "BLOCK", 5)
    lines = [*(json.dumps({"text": str(number)}) for number in range(40)), "{bad"]
    (file := tmp_path / "a.jsonl").write_text("\n".join(lines))
    for start in (0, 1, 15, 16, 17, 333):
        with pytest.raises(UserError, match=r"PATH: line 41 of a.jsonl is not a JSON object. Correct it."):
            list(documents_between(file, *NAMES, start, file.stat().st_size))
    monkeypatch.setattr("harness.data.documents.read_documents.SEGMENT_BYTES", 30)
    (packed := tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(file.read_bytes()))
    assert said(packed).startswith("data.sources.s.path=PATH: line 41 of a.jsonl.gz is not a JSON object")


def test_row_groups_together_are_the_table(tmp_path):
    texts = [f"text {number % 7}" * (number % 50) for number in range(1000)]
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": texts, "n": range(1000)}), file, row_group_size=130)
    sizes = row_group_sizes(file, "text")
    parts = [row_group_documents(file, *NAMES, range(group, group + 1)) for group in range(len(sizes))]
    assert [text for part in parts for text in part] == texts
    assert len(sizes) == 8
    assert all(0 < size < whole for size, whole in zip(sizes, row_group_sizes(file), strict=True))


def peak_bytes(file: Path) -> int:
    """Memory that reading a table takes at its peak: of Arrow and of Python."""
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    arrow_peak = max(pa.total_allocated_bytes() for _ in row_group_documents(file, *NAMES)) - before
    python_peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return arrow_peak + python_peak


def test_a_large_row_group_is_read_in_little_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_rows, "BATCH_BYTES", 2**16)
    texts = [f"{number} " * 2000 for number in range(8000)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", write_batch_size=32)
    assert peak_bytes(tmp_path / "a.parquet") < sum(map(len, texts)) / 4


def test_a_text_that_many_rows_share_is_expanded_a_few_times_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("AB_HARNESS_MAX_EXPANSION", "inf")
    monkeypatch.setattr(parquet_rows, "MAX_BATCH_BYTES", 2**21)
    rows = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000, pa.int32()), pa.array(["x" * 10**5]))
    pq.write_table(pa.table({"text": rows}), tmp_path / "a.parquet")
    assert peak_bytes(tmp_path / "a.parquet") < 2**25


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl.gz", "a.txt.gz"])
def test_nothing_in_a_file_is_no_document(tmp_path, name):
    if name == "a.parquet":
        pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / name)
    else:
        (tmp_path / name).write_bytes(gzip.compress(b""))
    assert read(tmp_path / name) == []


def test_lists_of_tokens_are_answered_with_the_way_to_arrow(tmp_path):
    pq.write_table(pa.table({"input_ids": [[1, 2], [3]]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"lists of integers in a.parquet.*save_to_disk\('FOLDER'\)"):
        read(tmp_path / "a.parquet", "input_ids")
