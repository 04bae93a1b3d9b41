"""Each recipe of docs/data.md, followed: its files made small, opened as a run opens them, and read."""

from __future__ import annotations

import re
import shlex

import numpy as np
import pytest

from harness.config.compose import compose
from harness.data import TextCorpus, describe_data, open_data
from tests.docs.data_files import CUT, END, MAKERS, TEXTS, make_files, token_documents
from tests.docs.documents import ROOT
from tests.docs.follow import follow

PAGE = (ROOT / "docs" / "data.md").read_text()
RECIPES = [shlex.split(text) for text in re.findall(r"\| `(data=own [^`]*)` \|", PAGE)]
PATH = "data.sources.own.path="
SHORT = ["data.sequence_length=16", "data.holdout=0.2", "evaluation.tokens=160"]


def path_of(words: list[str]) -> str:
    (path,) = (word.removeprefix(PATH) for word in words if word.startswith(PATH))
    return path


HERE = [words for words in RECIPES if "://" not in path_of(words)]
"""Recipes without a network; tests of data/remote read URLs."""
TEXT = [words for words in HERE if "data.tokenizer=none" not in words]
TOKENS = [words for words in HERE if "data.tokenizer=none" in words]


@pytest.fixture
def corpus(request, tmp_path, monkeypatch) -> TextCorpus:
    words = request.param
    monkeypatch.setenv("AB_HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    MAKERS[path_of(words)](tmp_path / path_of(words))
    config = compose([*words, *SHORT])
    assert describe_data(config.data, config.evaluation.tokens).domains
    corpus = open_data(config.data)
    assert isinstance(corpus, TextCorpus)
    return corpus


def documents_of(corpus: TextCorpus, tokens) -> list[np.ndarray]:
    tokens = tokens.read()
    (places,) = np.nonzero(tokens == corpus.codec.end_token)
    return np.split(tokens, places + 1)[:-1] if len(places) else [tokens]


def test_every_format_has_a_recipe():
    assert {path_of(words) for words in HERE} == MAKERS.keys()
    assert len(RECIPES) - len(HERE) == 1


@pytest.mark.parametrize("corpus", TEXT, indirect=True, ids=path_of)
def test_a_recipe_of_text_reads_its_documents(corpus):
    domain = next(domain for domain in corpus.domains if domain.name == "own")
    sides = [documents_of(corpus, side.tokens) for side in (domain.train, domain.heldout)]
    texts = [{corpus.codec.decode(tokens[:-1]) for tokens in side} for side in sides]
    assert texts[0] | texts[1] == {*TEXTS}
    assert all(texts)


@pytest.mark.parametrize("corpus", TOKENS, indirect=True, ids=path_of)
def test_a_recipe_of_tokens_reads_its_documents(corpus):
    (domain,) = corpus.domains
    sides = [side.tokens.read() for side in (domain.train, domain.heldout)]
    assert sum(map(len, sides)) == sum(map(len, token_documents()))
    parts = [part for side in sides for part in np.split(side, np.flatnonzero(side == END) + 1)]
    expected = [tokens.tolist() for tokens in token_documents()]
    assert sorted(part.tolist() for part in parts if len(part)) == sorted(expected)


def test_the_validation_file_is_what_is_held_out(tmp_path, monkeypatch):
    monkeypatch.setenv("AB_HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (words,) = (words for words in HERE if path_of(words) == "train.bin")
    MAKERS["train.bin"](tmp_path / "train.bin")
    opened = open_data(compose([*words, *SHORT]).data)
    assert isinstance(opened, TextCorpus)
    assert np.array_equal(opened.domains[0].heldout.tokens.read(), np.concatenate(token_documents()[CUT:]))


@pytest.mark.slow
def test_the_page_does_what_it_says(tmp_path, monkeypatch):
    """A sweep of two runs that trains, with a validation set beside its domains."""
    monkeypatch.setenv("AB_HARNESS_CACHE", str(tmp_path / "cache"))
    make_files(tmp_path)
    followed = follow(ROOT / "docs" / "data.md", tmp_path)
    assert (followed.status, followed.compared) == (0, 1), followed.printed
    assert "questions (questions.txt): 1 file and 1 shard" in followed.printed
    assert (tmp_path / "runs/with_sets/report.html").exists()
