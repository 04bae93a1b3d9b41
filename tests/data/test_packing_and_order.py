"""A corpus with data.packing and data.order: what its batches hold, what runs share, and what is refused."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest

from harness.config.schema.data import DataConfig, Order, Packing, SourceConfig
from harness.config.schema.run import ScaleConfig
from harness.core.errors import UserError
from harness.data import count_shared_examples, describe_data, describe_mix, open_data
from harness.data.codecs.tokenizer_file import load_codec
from harness.data.data_format import FORMATS, register_data
from harness.data.text import describe_text
from harness.data.text_sources.split import is_heldout

from .conftest import documents, text_corpus
from .test_describe_text import check_sentence

T, BATCH, STEPS = 16, 6, 50
LONG = 400
"""Sequence length that holds most documents whole."""
SCALE = ScaleConfig("test", 1, T * BATCH * STEPS, BATCH)
PACKED: dict[str, Any] = {"packing": Packing.best_fit}
BY_LENGTH: dict[str, Any] = {"order": Order.length, "horizon": SCALE.tokens}
IN_BLOCKS: dict[str, Any] = {"order": Order.blocks, "order_block": 5}


def trained_documents(name: str) -> list[tuple[int, ...]]:
    return [(*text.encode(), 256) for text in documents(name) if not is_heldout(text, 0.2)]


def ids_by_step(config: DataConfig, steps: int = STEPS) -> list[list[int]]:
    sampler = open_data(config).sampler(BATCH, 3)
    return [sampler.batch(t).ids_B.tolist() for t in range(steps)]


def test_packed_rows_hold_each_document_once_and_whole(configure):
    corpus = text_corpus(configure({"a": 1}, sequence_length=LONG, **PACKED))
    count = len(corpus.domains[0].train)
    rows = corpus.sampler(count, 0).batch(0).tokens_BT
    found = Counter()
    for row in rows:
        ends = np.flatnonzero(row == 256) + 1
        found.update(tuple(part.tolist()) for part in np.split(row[row >= 0], ends) if len(part))
    expected = trained_documents("a")
    assert max(map(len, expected)) <= LONG + 1, "none is cut"
    assert found == Counter(expected)
    assert (rows < 0).any()


def test_packed_ids_mean_packed_rows_and_nothing_else(configure):
    corpora = [
        text_corpus(configure({"a": 1}, sequence_length=length, packing=packing))
        for length in (T, LONG)
        for packing in Packing
    ]
    ids = [set(corpus.sampler(len(corpus.domains[0].train), 0).batch(0).ids_B.tolist()) for corpus in corpora]
    assert len(set.union(*ids)) == sum(len(corpus.domains[0].train) for corpus in corpora)


@pytest.mark.parametrize("changes", [PACKED, IN_BLOCKS, PACKED | BY_LENGTH], ids=str)
def test_batches_depend_on_the_step_alone_and_processes_read_their_rows(configure, changes):
    config = configure({"a": 1, "b": 2}, **changes)
    forwards = [open_data(config).sampler(BATCH, 3).batch(t).tokens_BT for t in range(5)]
    sampler = open_data(config).sampler(BATCH, 3)
    assert np.array_equal(forwards, [sampler.batch(t).tokens_BT for t in reversed(range(5))][::-1])
    owner_B = np.arange(BATCH) % 2
    parts = [open_data(config).sampler(BATCH, 3, owner_B == part).batch(4).tokens_BT for part in (0, 1)]
    assert np.array_equal(sum(parts), forwards[4])


def test_blocks_read_each_window_once_an_epoch_in_another_order(configure):
    random, blocks = (text_corpus(configure({"a": 1}, **changes)) for changes in ({}, IN_BLOCKS))
    count = len(random.domains[0].train)
    for t in range(2):
        one, other = (corpus.sampler(count, 5).batch(t) for corpus in (random, blocks))
        assert sorted(one.ids_B) == sorted(other.ids_B)
        assert not np.array_equal(one.ids_B, other.ids_B)


@pytest.mark.parametrize("changes", [{}, PACKED], ids=str)
def test_a_curriculum_reads_the_examples_of_the_random_order_the_short_ones_first(configure, changes):
    """Over more than an epoch of each source, and in the mix's own places."""
    weights = {"a": 1, "b": 3}
    random, sorted_ = (configure(weights, **changes, **more) for more in ({}, BY_LENGTH))
    ids = [ids_by_step(config) for config in (random, sorted_)]
    assert Counter(itertools.chain(*ids[0])) == Counter(itertools.chain(*ids[1]))
    corpus = text_corpus(sorted_)
    for domain in corpus.domains:
        rows = [(i - domain.salt) % 2**64 for i in itertools.chain(*ids[1])]
        lengths = domain.train.document_lengths(np.array([row for row in rows if row < len(domain.train)]))
        assert np.all(np.diff(lengths) >= 0)
        assert len(set(lengths.tolist())) > 3


def test_a_run_beyond_its_horizon_goes_on_in_random_order(configure):
    config, random = configure({"a": 1}, **BY_LENGTH), configure({"a": 1})
    assert ids_by_step(config, STEPS + 5)[STEPS:] == ids_by_step(random, STEPS + 5)[STEPS:]


def test_what_is_shared_is_what_the_ids_say(configure):
    even, skewed = {"a": 1, "b": 1}, {"a": 1, "b": 3}
    kinds = [{}, BY_LENGTH, IN_BLOCKS, IN_BLOCKS | {"order_block": 7}, PACKED, PACKED | BY_LENGTH]
    configs = [configure(weights, **kind) for weights in (even, skewed) for kind in kinds]
    runs = [ids_by_step(config) for config in configs]
    for (one, mine), (other, theirs) in itertools.product(zip(configs, runs, strict=True), repeat=2):
        answer = count_shared_examples(one, other, SCALE)
        both = Counter(itertools.chain(*mine)) & Counter(itertools.chain(*theirs))
        in_step = sum((Counter(a) & Counter(b)).total() for a, b in zip(mine, theirs, strict=True))
        is_same_kind = one.order is other.order and one.order_block == other.order_block
        is_known = is_same_kind or Order.blocks not in (one.order, other.order)
        assert answer.in_both == (both.total() if is_known else 0)
        is_at_known_step = is_same_kind and (one.order is not Order.length or one == other)
        assert answer.same_step == (in_step if is_at_known_step else 0)


def test_what_packing_leaves_empty_and_cuts_is_known_before_training(configure):
    config = configure({"a": 1, "b": 0}, **PACKED)
    rows, sources = text_corpus(config).domains[0].train, describe_data(config, 160).sources
    tokens_BT = rows[np.arange(len(rows))]
    assert sources["a"].packed_rows == len(rows)
    assert sources["a"].padding == pytest.approx(np.mean(tokens_BT < 0))
    assert sources["a"].cut_documents == sum(len(document) > T + 1 for document in trained_documents("a"))
    assert sources["b"].packed_rows is None


def test_fingerprints_tell_packing_and_order(configure):
    kinds = [{}, BY_LENGTH, IN_BLOCKS, IN_BLOCKS | {"order_block": 7}, PACKED, PACKED | IN_BLOCKS]
    facts = [describe_data(configure({"a": 1}, **kind), 160) for kind in kinds]
    assert len({each.fingerprint for each in facts}) == len(kinds)
    assert len({each.eval_fingerprint for each in facts}) == 1
    assert describe_data(configure({"a": 1}, order_block=7), 160).fingerprint == facts[0].fingerprint


def test_a_mask_of_documents_needs_the_token_that_ends_one(configure, monkeypatch):
    codec = load_codec(configure({"a": 1}))
    monkeypatch.setattr(codec, "end_token", None)
    monkeypatch.setattr(describe_text, "load_codec", lambda config: codec)
    with pytest.raises(UserError) as caught:
        describe_data(configure({"a": 1}, mask_documents=True), 160)
    check_sentence(str(caught.value), ["data.mask_documents=true", "Set data.end_token"])


def test_a_curriculum_needs_the_length_of_its_run(configure):
    with pytest.raises(UserError) as caught:
        describe_data(configure({"a": 1}, order=Order.length), 160)
    check_sentence(str(caught.value), ["data.horizon=null", "data.order=length", "Set data.horizon"])
    with pytest.raises(UserError) as caught:
        describe_mix(configure({"a": 1}, order=Order.length, horizon=SCALE.tokens + 1), SCALE)
    check_sentence(str(caught.value), ["data.horizon=4801", "data.order=length", "Set data.horizon"])


@pytest.mark.parametrize("changes", [PACKED, IN_BLOCKS], ids=str)
def test_images_and_rows_of_ones_own_have_neither(changes):
    images = DataConfig("i", {"a": SourceConfig("pack:digits")}, kind="images", sequence_length=4, **changes)
    with pytest.raises(UserError) as caught:
        describe_data(images, 160)
    check_sentence(str(caught.value), ["is for text; images", "Leave it out"])

    register_data("counted")(_Counted)
    try:
        with pytest.raises(UserError) as caught:
            describe_data(DataConfig("o", kind="counted", sequence_length=4, **changes), 160)
    finally:
        del FORMATS.entries["counted"]
    check_sentence(str(caught.value), ["is for text; rows of data.kind=counted", "Leave it out"])


class _Counted:
    def __init__(self, sequence_length, options):
        pass

    def batch(self, seed, step, batch):
        return np.zeros((batch, 4), np.int32)
