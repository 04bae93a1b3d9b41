"""Rows that a user's own class makes: pure in seed and step, checked, and shared out over processes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest

from harness.config.schema.data import DataConfig
from harness.core.errors import UserError
from harness.data import describe_data, open_data
from harness.data.data_format import FORMATS, register_data


@dataclass(frozen=True)
class Options:
    size: int = 3


class Numbers:
    """Normal numbers; the classes of the refusals change one method."""

    vocabulary = 5

    def __init__(self, sequence_length, options):
        self.size = options.size

    def batch(self, seed, step, batch):
        return np.random.default_rng([seed, step]).normal(size=(batch, self.size)).astype(np.float32)

    def heldout(self, count):
        return {"near": self.batch(99, 0, count), "far": self.batch(99, 1, count)}


@pytest.fixture
def config():
    register_data("test_numbers", Options)(Numbers)
    yield DataConfig("numbers", sequence_length=2, kind="test_numbers")
    del FORMATS.entries["test_numbers"]


def test_a_step_is_read_alone_and_a_process_gets_its_rows(config):
    corpus, mask = open_data(config), np.array([True, False, True, False])
    whole, part = corpus.sampler(4, 7), corpus.sampler(4, 7, mask)
    later = whole.batch(5)
    np.testing.assert_array_equal(later.tokens_BT, Numbers(2, Options()).batch(7, 5, 4))
    np.testing.assert_array_equal(part.batch(5).tokens_BT[mask], later.tokens_BT[mask])
    assert not part.batch(5).tokens_BT[~mask].any()
    np.testing.assert_array_equal(part.batch(5).ids_B, later.ids_B)
    assert not set(later.ids_B) & set(whole.batch(6).ids_B) | set(corpus.sampler(4, 8).batch(5).ids_B) & set(
        later.ids_B
    )


def test_its_facts_follow_from_its_rows(config):
    facts = describe_data(config, 8)
    assert (facts.row, facts.dtype, facts.vocabulary, facts.domains) == ((3,), "float32", 5, ("near", "far"))
    assert {name: len(rows.tokens_NT) for name, rows in open_data(config).heldout(8).items()} == {
        "near": 4,
        "far": 4,
    }
    other = describe_data(dataclasses.replace(config, options={"size": 4}), 8)
    assert other.fingerprint != facts.fingerprint
    assert other.eval_fingerprint != facts.eval_fingerprint
    assert describe_data(config, 8) == facts


def test_rows_that_are_none_are_refused(config, monkeypatch):
    def refused(said, method, function, tokens=8):
        with monkeypatch.context() as changed:
            changed.setattr(Numbers, method, function)
            with pytest.raises(UserError, match=said):
                describe_data(config, tokens)

    refused("batch gives list, not 4 rows", "batch", lambda self, seed, step, batch: [0])
    refused(r"batch gives float64 \[4, 3\]", "batch", lambda self, seed, step, batch: np.zeros((batch, 3)))
    refused(r"batch gives int32 \[3, 3\]", "batch", lambda self, *_: np.zeros((3, 3), np.int32))
    draw = np.random.default_rng(0)
    refused(
        "two calls of batch",
        "batch",
        lambda self, seed, step, batch: draw.normal(size=(batch, 3)).astype("f4"),
    )
    refused(
        "held-out rows of test_numbers are int32",
        "heldout",
        lambda self, count: np.zeros((count, 3), np.int32),
    )
    refused("less than one example", "heldout", Numbers.heldout, tokens=1)
    with pytest.raises(UserError, match=r"data.kind=test_number is not registered.*test_numbers"):
        open_data(dataclasses.replace(config, kind="test_number"))
    with pytest.raises(UserError, match=r"data.options.sise does not exist.*size"):
        open_data(dataclasses.replace(config, options={"sise": 3}))
    with pytest.raises(UserError, match=r"data.mask_documents is for text"):
        describe_data(dataclasses.replace(config, mask_documents=True), 8)
