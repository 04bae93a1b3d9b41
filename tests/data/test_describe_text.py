import dataclasses
import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.config.schema.data import DataConfig, SourceConfig
from harness.config.schema.run import Config, EvaluationConfig
from harness.core.errors import UserError
from harness.data import DataFacts, describe_data, open_data
from harness.data.open_data import check_same_content

from .conftest import documents, text_corpus, write


def described(config: DataConfig, eval_tokens: int = 160) -> DataFacts:
    return describe_data(config, eval_tokens)


def test_facts_are_those_of_the_open_corpus(configure):
    config = configure({"b": 1, "a": 2}, tokenizer="bpe512")
    facts, corpus = described(config), text_corpus(config)
    assert facts.vocabulary == corpus.codec.vocabulary
    assert facts.domains == tuple(corpus.heldout(160)) == ("a", "b")


def test_describing_tokenises_nothing(configure, cache):
    described(configure({"a": 1}))
    assert list((cache / "tokens").glob("*.lock")) == []


def test_describing_again_reads_no_document(configure, monkeypatch):
    config = configure({"a": 1})
    facts = described(config)
    monkeypatch.setattr(
        "harness.data.text_sources.source.Source.documents_of", lambda source: pytest.fail("read again")
    )
    assert described(config) == facts


def test_another_share_counts_the_documents_again(configure):
    config = configure({"a": 1})
    described(config)
    check_refusal(dataclasses.replace(config, holdout=1e-9), ["data.sources.a.path=", "no held-out text"])


CHANGES: dict[str, Callable[[DataConfig], object]] = {
    "text": lambda config: write(Path(config.sources["a"].path), [*documents("a"), "more"]),
    "tokenizer": lambda config: setattr(config, "tokenizer", "bpe512"),
    "sequence length": lambda config: setattr(config, "sequence_length", 8),
    "holdout": lambda config: setattr(config, "holdout", 0.3),
    "source name": lambda config: config.sources.update(c=config.sources.pop("a")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_both_fingerprints_tell_other_data(configure, change):
    config = configure({"a": 1, "b": 1})
    before = described(config)
    change(config)
    after = described(config)
    assert before.fingerprint != after.fingerprint
    assert before.eval_fingerprint != after.eval_fingerprint


def test_weights_change_what_is_trained_on_and_not_what_is_evaluated(configure):
    one, other = described(configure({"a": 1, "b": 1})), described(configure({"a": 2, "b": 1}))
    assert one.fingerprint != other.fingerprint
    assert one.eval_fingerprint == other.eval_fingerprint


def test_the_number_of_held_out_tokens_changes_what_is_evaluated_and_not_what_is_trained_on(configure):
    config = configure({"a": 1})
    one, other = described(config, 160), described(config, 320)
    assert one.fingerprint == other.fingerprint
    assert one.eval_fingerprint != other.eval_fingerprint


def test_names_and_paths_of_files_do_not_matter(configure, tmp_path):
    config = configure({"a": 1})
    before = described(config)
    moved = tmp_path / "elsewhere.txt"
    Path(config.sources["a"].path).rename(moved)
    config.sources["a"].path = str(moved)
    after = described(dataclasses.replace(config, name="other"))
    assert dataclasses.replace(after, sources=before.sources) == before


def test_data_that_changed_since_the_launch_are_not_trained_on(configure):
    config = Config(data=configure({"a": 1}), evaluation=EvaluationConfig(tokens=160))
    facts = described(config.data)
    check_same_content(config, facts.fingerprint, facts.eval_fingerprint)
    write(Path(config.data.sources["a"].path), [*documents("a"), "more"])
    with pytest.raises(UserError, match=r"data.sources.a.path=.*is not what it was when the run was"):
        check_same_content(config, facts.fingerprint, facts.eval_fingerprint)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of files that cannot be read, or not in full."""
    texts = documents("a")
    for name, content in {
        "empty.txt": b"",
        "blank.txt": b" \n<|endoftext|>\n\n",
        "one.txt": b"a single document",
        "latin.txt": "naïve ".encode("latin-1") * 5000,
        "bad.jsonl": b'{"text": "one"}\n{"text": \n',
        "half.jsonl": b'{"text": "\\ud800"}\n',
        "bad.parquet": b"PAR1 no more",
        "body.jsonl": "".join(json.dumps({"body": text, "n": 1}) + "\n" for text in texts).encode(),
        "tokenizer.json": b"{}",
        "none/README.md": b"not a text",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    pq.write_table(pa.table({"body": texts, "n": range(len(texts))}), tmp_path / "body.parquet")
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "rows.parquet")
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(b""))
    packed = pa.compress("\n<|endoftext|>\n".join(texts).encode(), "zstd", asbytes=True)
    (tmp_path / "cut.txt.zst").write_bytes(packed[:-200])
    return tmp_path


PATHS = {
    "latn.txt": "does not exist: did you mean 'latin.txt'?",
    "nowhere/a.txt": "does not exist",
    "pack:pros": "did you mean 'prose'?",
    "none/README.md": "Give .txt, .txt.zst, .txt.gz, .txt.bz2, .jsonl",
    "none": "Give .txt, .txt.zst, .txt.gz, .txt.bz2, .jsonl",
    "empty.txt": "is empty",
    "blank.txt": "is empty",
    "rows.parquet": "is empty",
    "rows.jsonl.gz": "is empty",
    "latin.txt": "is not UTF-8: convert it",
    "half.jsonl": "line 1 of half.jsonl holds \\ud800, half of a surrogate pair and no character",
    "cut.txt.zst": "cannot be read",
    "bad.parquet": "cannot be read",
    "bad.jsonl": "line 2 of bad.jsonl",
    "one.txt": "has 15 training tokens, less than one window",
}


@pytest.mark.parametrize(("path", "said"), PATHS.items(), ids=PATHS)
def test_a_path_that_cannot_be_read_is_told_in_one_sentence(configure, folder, path, said):
    config = configure({"a": 1, "b": 1})
    config.sources["a"].path = path if path.startswith("pack:") else str(folder / path)
    check_refusal(config, [f"data.sources.a.path={config.sources['a'].path}", said])


@pytest.mark.parametrize("file", ["body.jsonl", "body.parquet"])
@pytest.mark.parametrize(("column", "said"), [("boby", "did you mean 'body'?"), ("n", "holds int")])
def test_a_column_without_text_is_told_in_one_sentence(configure, folder, file, column, said):
    config = configure({"a": 1})
    config.sources["a"] = SourceConfig(str(folder / file), column=column)
    check_refusal(config, [f"data.sources.a.column={column}", said])


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        (-1.0, "above 0"),
        (math.nan, "above 0"),
        (math.inf, "above 0"),
        (1e-5, "never be read"),
    ],
)
def test_a_weight_that_reads_nothing_is_told_in_one_sentence(configure, weight, said):
    check_refusal(configure({"a": weight, "b": 1}), [f"data.sources.a.weight={weight}", said])


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("sequence_length", 10**6, "training tokens"),
        ("sources", {}, "pack:prose"),
        ("tokenizer", "bpe521", "did you mean 'bpe512'?"),
        ("tokenizer", "tokenizer.json", "Give a tokenizer.json"),
    ],
)
def test_a_field_that_makes_no_sense_is_told_in_one_sentence(
    configure, folder, monkeypatch, field, value, said
):
    monkeypatch.chdir(folder)
    check_refusal(dataclasses.replace(configure({"a": 1}), **{field: value}), [f"data.{field}={value}", said])


def check_refusal(config: DataConfig, said: list[str]) -> None:
    with pytest.raises(UserError) as error:
        described(config)
    check_sentence(str(error.value), said)


def check_sentence(message: str, said: list[str]) -> None:
    assert all(words in message for words in said), message
    assert "\n" not in message
    problem, separator, way_out = message.replace(". ", ": ", 1).rpartition(": ")
    assert separator
    assert problem
    assert way_out


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (15, ["evaluation.tokens=15", "data.sequence_length=16"]),
        (10**6, ["evaluation.tokens=1000000", "data.sources.a"]),
    ],
)
def test_held_out_tokens_that_are_not_there(configure, tokens, said):
    config = configure({"a": 1})
    with pytest.raises(UserError) as described_so:
        describe_data(config, tokens)
    with pytest.raises(UserError) as opened_so:
        open_data(config).heldout(tokens)
    assert str(described_so.value) == str(opened_so.value)  # a byte is a token: the bound is exact
    check_sentence(str(opened_so.value), said)


def test_what_only_tokens_can_tell_is_told_when_they_are_there(configure):
    """Bytes would have sufficed for this window, tokens do not."""
    config = configure({"a": 1}, tokenizer="bpe512")
    config.sequence_length = 2 * len(text_corpus(config).domains[0].train.tokens) // 2
    with pytest.raises(UserError) as error:
        open_data(config)
    check_sentence(str(error.value), ["data.sources.a.path=", "training tokens", "data.sequence_length="])


def test_a_source_that_cannot_be_read_leaves_no_entry(configure, folder, cache):
    config = configure({"a": 1})
    config.sources["a"].path = str(folder / "latin.txt")
    with pytest.raises(UserError, match="not UTF-8"):
        open_data(config)
    assert list((cache / "tokens").rglob("header.json")) == []
