"""A text of one document, and a folder of a few: the end of each is held out where hashing leaves none."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from harness.config.schema.data import DataConfig, SourceConfig
from harness.core.errors import UserError
from harness.data import describe_data
from harness.data.text_sources.split import is_heldout

from .conftest import documents, text_corpus, write

PARAGRAPHS = "\n\n".join(documents("book", 3000))


def book(path: Path, **fields) -> DataConfig:
    values = {"tokenizer": "byte", "sequence_length": 16, "holdout": 0.05} | fields
    return DataConfig("own", {"own": SourceConfig(str(path))}, **values)


def sides(config: DataConfig, name: str = "own") -> tuple[str, str]:
    """The training and the held-out text, documents separated by |."""
    (domain,) = (domain for domain in text_corpus(config).domains if domain.name == name)
    arrays = (domain.train.tokens.read(), domain.heldout.tokens.read())
    train, held = (bytes(np.where(array == 256, ord("|"), array).astype(np.uint8)) for array in arrays)
    return train.decode(), held.decode()


def test_one_text_of_3000_paragraphs_gives_its_tail(tmp_path):
    (tmp_path / "my.txt").write_text(PARAGRAPHS)
    config = book(tmp_path / "my.txt")
    facts = describe_data(config, 16_384)
    train, held = sides(config)
    assert train[:-1] + held[:-1] == PARAGRAPHS
    assert len(held) - 1 == int(0.05 * len(PARAGRAPHS))
    assert (facts.sources["own"].split, facts.sources["own"].documents) == ("tails", 1)
    assert len(text_corpus(config).heldout(16_384)["own"].tokens_NT) == 1024


def test_a_folder_of_two_texts_gives_two_tails_whatever_their_names(tmp_path):
    texts = [text for text in documents("pair", 40) if not is_heldout(text, 0.05)][:2]
    for folder, names in (("one", "ab"), ("two", "ba")):
        (tmp_path / folder).mkdir()
        for name, text in zip(names, texts, strict=True):
            (tmp_path / folder / f"{name}.txt").write_text(text * 40)
    (one, one_held), (two, two_held) = (sides(book(tmp_path / folder)) for folder in ("one", "two"))
    assert sorted(one.split("|")) == sorted(two.split("|"))
    assert sorted(one_held.split("|")) == sorted(two_held.split("|"))
    assert len(one_held.strip("|").split("|")) == 2


def test_a_single_document_that_hashing_holds_out_is_trained_on_too(tmp_path):
    text = next(text * 30 for text in documents("out", 200) if is_heldout(text * 30, 0.2))
    (tmp_path / "a.txt").write_text(text)
    config = book(tmp_path / "a.txt", holdout=0.2)
    train, held = sides(config)
    assert train[:-1] + held[:-1] == text
    config.sources["more"] = SourceConfig(str(write(tmp_path / "more.txt", documents("more"))))
    config.sources["own"].weight = 0.0
    assert sides(config) == ("", text + "|"), "a source that is only evaluated is held out in full, as ever"


def test_both_ways_are_kept_apart(tmp_path):
    """The hash of the evaluation differs, since weights alone do not change it."""
    text = next(text * 30 for text in documents("out", 200) if is_heldout(text * 30, 0.2))
    (tmp_path / "a.txt").write_text(text)
    config = book(tmp_path / "a.txt", holdout=0.2)
    config.sources["more"] = SourceConfig(str(write(tmp_path / "more.txt", documents("more"))))
    facts = describe_data(config, 160)
    config.sources["own"].weight = 0.0
    assert describe_data(config, 160).eval_fingerprint != facts.eval_fingerprint


def test_a_source_with_a_held_out_document_is_divided_as_ever(tmp_path):
    path = write(tmp_path / "a.txt", documents("a"))
    facts = describe_data(book(path, holdout=0.2), 160)
    assert facts.sources["own"].split == "documents"
    assert facts.fingerprint == "aef49a3e19b493b76865e95aba4485318256e2837130cd7b6cc6e20bfd4c9dfd"
    assert facts.eval_fingerprint == "d7e48a568ba12fcfb42c49368655e7a45ae54d0e1f4ea7957d12845c210a0b28"


def test_the_summary_of_a_source_counts_what_is_there(tmp_path):
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder" / "a.txt", documents("a"))
    write(tmp_path / "folder" / "b.txt", documents("b"))
    config = book(tmp_path / "folder", holdout=0.2, tokenizer="bpe512")
    source = describe_data(config, 160).sources["own"]
    exact = len(text_corpus(config).domains[0].train.tokens)
    assert (source.files, source.documents, source.is_estimate) == (2, 240, True)
    assert abs(source.train_tokens / exact - 1) < 0.05
    assert sorted(source.digests) == ["a.txt", "b.txt"]
    exact_source = describe_data(dataclasses.replace(config, tokenizer="byte"), 160).sources["own"]
    assert exact_source.train_tokens == len(sides(dataclasses.replace(config, tokenizer="byte"))[0].encode())


@pytest.mark.parametrize(("side", "holdout"), [("train", 0.7), ("heldout", 0.2)])
def test_tokens_that_bytes_promise_and_a_tokenizer_does_not_give_are_told_in_time(tmp_path, side, holdout):
    path = write(tmp_path / "a.txt", documents("a"))
    config = book(path, holdout=holdout, tokenizer="bpe512")
    tokens = len(getattr(text_corpus(config).domains[0], side).tokens)
    if side == "heldout":
        describe_data(config, tokens - 17)
        with pytest.raises(UserError, match=r"is more than data.sources.own holds out"):
            describe_data(config, tokens + 16)
    else:
        config.sequence_length = tokens
        with pytest.raises(UserError, match=f"has {tokens} training tokens, less than one window"):
            describe_data(config, tokens)


def test_a_text_that_is_too_short_for_a_tail_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("short text")
    with pytest.raises(UserError, match=r"no held-out text \(1 documents, data.holdout=0.05\)"):
        describe_data(book(tmp_path / "a.txt", sequence_length=2), 2)
