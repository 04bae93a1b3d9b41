"""Validation sets are evaluated whole, on the same windows for every run, without what was trained on."""

from __future__ import annotations

import random
import string

import numpy as np
import pytest

from harness.config.schema.run import Config
from harness.config.schema.run_schedule import EvaluationConfig, EvaluationSetConfig
from harness.core.errors import UserError
from harness.data import describe_evaluated, heldout_rows, open_data
from harness.data.codecs.codec import ByteCodec
from harness.data.evaluation import validation_sets
from harness.data.evaluation.ngrams import NgramIndex
from harness.data.evaluation.validation_sets import heldout_sets, with_sets
from harness.data.order.permutation import make_key, permute
from harness.data.text.describe_text import check_text_config
from tests.data.conftest import documents, text_corpus, write

T, NGRAM = 16, 13


def fresh(count, seed=""):
    """Documents of random letters, which no source has."""
    draw = random.Random(seed)
    return ["".join(draw.choices(string.ascii_letters, k=draw.randint(60, 400))) for _ in range(count)]


@pytest.fixture
def config(configure, tmp_path):
    """Return a config that evaluates sets of the given documents, by name, beside the sources a and b."""

    def make(weights=None, tokens=160, ngram=NGRAM, data=None, **sets):
        nodes = {}
        for name, texts in sets.items():
            folder = tmp_path / f"set-{random.Random(repr(texts)).random()}"
            folder.mkdir(exist_ok=True)
            nodes[name] = EvaluationSetConfig(str(write(folder / "texts.txt", texts)))
        data = configure(weights or {"a": 1, "b": 1}, **data or {})
        return Config(data=data, evaluation=EvaluationConfig(tokens=tokens, sets=nodes, decontaminate=ngram))

    return make


def described(config):
    """Facts of a run whose sets were compared, as a launch does before it records them."""
    heldout_sets(config)
    return describe_evaluated(config)


def tokens_of(texts):
    return np.concatenate([[*text.encode(), ByteCodec.end_token] for text in texts])


def windows_in_order(name, texts):
    """All windows of a set, in the order of the held-out windows of a source."""
    tokens = tokens_of(texts)
    count = (len(tokens) - 1) // T
    order = permute(np.arange(count), count, make_key("heldout", name))
    return np.stack([tokens[i * T : i * T + T + 1] for i in order.astype(int)])


def training_ngrams(config):
    grams = set()
    for domain in text_corpus(config.data).domains:
        tokens = domain.train.tokens.read().tolist()
        grams |= {tuple(tokens[i : i + NGRAM]) for i in range(len(tokens) - NGRAM + 1)}
    return grams


def share_in(row, grams):
    """Share of the tokens of a window that are in n-grams of the training text."""
    starts = [i for i in range(len(row) - NGRAM + 1) if tuple(row[i : i + NGRAM].tolist()) in grams]
    return len({i + j for i in starts for j in range(NGRAM)}) / len(row)


def test_all_of_a_set_is_held_out_and_evaluated_beside_the_sources(config):
    texts = fresh(30)
    made = config(c=texts)
    rows = heldout_rows(made, open_data(made.data))
    assert [*rows] == ["a", "b", "c"] == [*described(made).domains]
    np.testing.assert_array_equal(rows["c"].tokens_NT, windows_in_order("c", texts)[:10])
    assert rows["c"].bytes == (rows["c"].tokens_NT[:, 1:] != ByteCodec.end_token).sum()
    without = open_data(config().data).heldout(160)
    for name in ("a", "b"):
        np.testing.assert_array_equal(rows[name].tokens_NT, without[name].tokens_NT)


def test_more_tokens_include_the_windows_of_fewer(config):
    texts = fresh(30)
    few, many = (heldout_sets(config(tokens=tokens, c=texts))["c"].tokens_NT for tokens in (5 * T, 20 * T))
    np.testing.assert_array_equal(few, many[:5])


def test_windows_that_stand_in_the_training_text_are_replaced_by_the_next(config):
    texts = [text for pair in zip(fresh(40), documents("a", 40), strict=True) for text in pair]
    made = config(c=texts)
    ordered, grams = windows_in_order("c", texts), training_ngrams(made)
    shares = np.array([share_in(row, grams) for row in ordered])
    clean = ordered[shares < 0.8]
    assert 10 < len(clean) < 0.8 * len(ordered)
    np.testing.assert_array_equal(heldout_sets(made)["c"].tokens_NT, clean[:10])
    facts = described(made).sets["c"]
    assert (facts.left_out_share, facts.touched_share) == (
        (shares[:40] >= 0.8).mean(),
        (shares[:40] > 0).mean(),
    )
    assert (shares[:40] >= 0.8).mean() > 0.2
    np.testing.assert_array_equal(heldout_sets(config(ngram=0, c=texts))["c"].tokens_NT, ordered[:10])


def test_more_windows_are_compared_until_enough_are_clean(config):
    texts = [*documents("a", 60), *fresh(4)]
    made = config(c=texts)
    ordered, grams = windows_in_order("c", texts), training_ngrams(made)
    clean = ordered[[share_in(row, grams) < 0.8 for row in ordered]]
    assert [share_in(row, grams) < 0.8 for row in ordered[:40]].count(True) < 10
    np.testing.assert_array_equal(heldout_sets(made)["c"].tokens_NT, clean[:10])


def test_mixes_of_the_same_sources_are_evaluated_on_the_same_windows(config):
    texts = [*fresh(20), *documents("b", 20)]
    mixes = [config(weights, c=texts) for weights in ({"a": 1, "b": 3}, {"a": 1, "b": 0}, {"a": 0, "b": 1})]
    rows = [heldout_sets(made)["c"].tokens_NT for made in mixes]
    assert all(np.array_equal(rows[0], other) for other in rows)
    assert len({described(made).eval_fingerprint for made in mixes}) == 1
    assert len({described(made).fingerprint for made in mixes}) == 3


def test_only_what_changes_the_evaluated_tokens_changes_their_fingerprint(config):
    plain, texts = config(), fresh(30)
    facts = described(plain)
    assert (facts.sets, facts) == ({}, described(config(ngram=5)))
    changed = [
        config(c=texts),
        config(d=texts),
        config(c=texts[1:]),
        config(c=texts, ngram=12),
        config(c=texts, ngram=0),
    ]
    facts_of_changed = [described(made) for made in changed]
    assert len({facts.eval_fingerprint, *(each.eval_fingerprint for each in facts_of_changed)}) == 6
    assert {each.fingerprint for each in facts_of_changed} == {facts.fingerprint}


def test_a_training_text_is_searched_once(config, monkeypatch):
    made = config(c=fresh(30), d=fresh(30, "z"))
    before = heldout_sets(made)
    monkeypatch.setattr(NgramIndex, "find_in", lambda *_: pytest.fail("searched again"))
    after = heldout_sets(config({"a": 2, "b": 1}, c=fresh(30), d=fresh(30, "z")))
    assert all(np.array_equal(before[name].tokens_NT, after[name].tokens_NT) for name in "cd")


def test_a_description_tokenises_nothing_and_waits_for_no_long_search(config, monkeypatch, cache):
    made = config(c=fresh(30))
    early = describe_evaluated(made).sets["c"]
    assert not [*cache.rglob("*.bin")]
    assert (early.left_out_share, early.is_estimate, early.tokens) == (None, True, 160)
    monkeypatch.setattr(validation_sets, "SEARCHED_TOKENS", 1000)
    for source in (*validation_sets.find_sets(made), *check_text_config(made.data)):
        source.open(trained=source.name != "c")
    unsearched, late = describe_evaluated(made), described(made)
    assert (unsearched.sets["c"].left_out_share, unsearched.sets["c"].is_estimate) == (None, True)
    assert (late.sets["c"].left_out_share, late.sets["c"].is_estimate) == (0.0, False)
    assert late.eval_fingerprint == unsearched.eval_fingerprint


def test_a_set_of_fewer_tokens_is_evaluated_whole(config):
    texts = [fresh(1)[0][:60]]
    facts, rows = described(made := config(c=texts)).sets["c"], heldout_sets(config(c=texts))["c"]
    assert len(rows.tokens_NT) == (len(tokens_of(texts)) - 1) // T < made.evaluation.tokens // T
    assert (facts.tokens, facts.available) == (len(rows.tokens_NT) * T, len(tokens_of(texts)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"c": ["short"]}, ["evaluation.sets.c.path=", "6 tokens", "data.sequence_length=16"]),
        ({"c": [" "]}, ["evaluation.sets.c.path=", "empty"]),
        ({"a": fresh(30)}, ["evaluation.sets.a", "data.sources", "another name"]),
        ({"x/y": fresh(30)}, ["evaluation.sets.x/y", "letters"]),
        ({"x y": fresh(30)}, ["evaluation.sets.x y", "letters"]),
        (
            {"c": documents("a", 120)},
            ["evaluation.sets.c.path=", "every window", "evaluation.decontaminate=13"],
        ),
        (
            {"ngram": 17, "c": fresh(30)},
            ["evaluation.decontaminate=17", "data.sequence_length=16"],
        ),
        ({"data": {"kind": "images"}, "c": fresh(30)}, ["evaluation.sets", "data.kind=images"]),
    ],
)
def test_what_is_no_set_is_refused(config, change, said):
    if "c" in change and "every window" in said:
        change = change | {"data": {"holdout": 0.001}}
    facts, made = describe_evaluated(config()), config(**change)

    def launch():
        with_sets(facts, made)
        heldout_sets(made)

    with pytest.raises(UserError) as error:
        launch()
    assert all(words in str(error.value) for words in said), error.value


@pytest.mark.parametrize(
    ("path", "said"), [("nothing.txt", "does not exist"), ("a.txt", "data.sources.a.path=")]
)
def test_files_that_are_missing_or_trained_on_are_refused(config, tmp_path, path, said):
    made = config()
    made.evaluation.sets = {"c": EvaluationSetConfig(str(tmp_path / path))}
    with pytest.raises(UserError) as error:
        heldout_sets(made)
    assert str(error.value).startswith(f"evaluation.sets.c.path={tmp_path / path}")
    assert said in str(error.value)


def test_a_set_of_tokens_is_evaluated_as_its_text_is(config, tmp_path):
    texts = [*fresh(20), *documents("a", 20)]
    made = config(c=texts)
    np.save(tmp_path / "tokens.npy", tokens_of(texts).astype(np.uint16))
    of_tokens = config()
    of_tokens.evaluation.sets = {"c": EvaluationSetConfig(str(tmp_path / "tokens.npy"))}
    rows, rows_of_tokens = heldout_sets(made)["c"], heldout_sets(of_tokens)["c"]
    np.testing.assert_array_equal(rows.tokens_NT, rows_of_tokens.tokens_NT)
    assert rows.bytes == rows_of_tokens.bytes
    summary, summary_of_tokens = (described(each).sets["c"] for each in (made, of_tokens))
    assert summary.left_out_share == summary_of_tokens.left_out_share
    assert summary.left_out_share
