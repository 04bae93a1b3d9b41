import hashlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from harness.config.schema.data import DataConfig, SourceConfig
from harness.data import TextCorpus, describe_data, open_data, update_example_hash
from harness.data.text_sources.split import is_heldout

from .conftest import documents, text_corpus, write

T = 16


def stream(name: str, held: bool) -> list[int]:
    """The tokens of a byte corpus, joined by hand."""
    texts = [text for text in documents(name) if is_heldout(text, 0.2) == held]
    return [token for text in texts for token in (*text.encode(), 256)]


def windows(name: str, held: bool = False) -> list[tuple[int, ...]]:
    tokens = stream(name, held)
    return [tuple(tokens[start : start + T + 1]) for start in range(0, len(tokens) - T, T)]


def ids_of(corpus: TextCorpus, domain: int, steps: int, batch: int = 8, seed: int = 0) -> list[int]:
    """The ids of one domain's examples in the order in which they are read."""
    salt, count = corpus.domains[domain].salt, len(corpus.domains[domain].train)
    ids = np.concatenate([corpus.sampler(batch, seed).batch(t).ids_B for t in range(steps)])
    return [i for i in ids.tolist() if (i - salt) % 2**64 < count]


def test_an_epoch_reads_each_window_once(configure):
    corpus = text_corpus(configure({"a": 1}))
    count = len(corpus.domains[0].train)
    sampler = corpus.sampler(count, 5)
    epochs = [sampler.batch(t) for t in range(3)]
    for epoch in epochs:
        assert Counter(map(tuple, epoch.tokens_BT.tolist())) == Counter(windows("a"))
        assert len(set(epoch.ids_B.tolist())) == count
    assert not np.array_equal(epochs[0].ids_B, epochs[1].ids_B)


def test_each_token_is_predicted_once_an_epoch(configure):
    corpus = text_corpus(configure({"a": 1}))
    count = len(corpus.domains[0].train)
    targets = corpus.sampler(count, 0).batch(0).tokens_BT[:, 1:]
    assert Counter(targets.ravel().tolist()) == Counter(stream("a", False)[1 : count * T + 1])


def test_equal_ids_mean_equal_tokens(configure):
    corpus = text_corpus(configure({"a": 1, "b": 2, "c": 1}))
    sampler = corpus.sampler(64, 0)
    tokens: dict[int, bytes] = {}
    for t in range(100):
        batch = sampler.batch(t)
        for i, row in zip(batch.ids_B.tolist(), batch.tokens_BT, strict=True):
            assert tokens.setdefault(i, row.tobytes()) == row.tobytes()
    assert len(tokens) == sum(len(domain.train) for domain in corpus.domains)


def test_shapes_and_types(configure):
    batch = open_data(configure({"a": 1, "b": 1})).sampler(6, 0).batch(3)
    assert (batch.tokens_BT.shape, batch.tokens_BT.dtype) == ((6, T + 1), np.int32)
    assert (batch.ids_B.shape, batch.ids_B.dtype) == ((6,), np.uint64)


def test_a_batch_depends_on_t_alone(configure):
    config = configure({"a": 1, "b": 2})
    sampler = open_data(config).sampler(8, 3)
    forwards = [sampler.batch(t).tokens_BT for t in range(20)]
    other = open_data(config).sampler(8, 3)
    backwards = [other.batch(t).tokens_BT for t in reversed(range(20))][::-1]
    assert np.array_equal(forwards, backwards)


def test_two_batches_are_one_of_twice_the_size(configure):
    corpus = open_data(configure({"a": 1, "b": 2}))
    small, large = corpus.sampler(8, 3), corpus.sampler(16, 3)
    joined = np.concatenate([small.batch(6).ids_B, small.batch(7).ids_B])
    assert np.array_equal(joined, large.batch(3).ids_B)


def test_the_data_seed_orders_and_nothing_else(configure):
    corpus = text_corpus(configure({"a": 1}))
    count = len(corpus.domains[0].train)
    one, other = (corpus.sampler(count, seed).batch(0).ids_B for seed in (0, 1))
    assert not np.array_equal(one, other)
    assert set(one.tolist()) == set(other.tolist())


PROCESS = """
import sys
from harness.config.schema.data import DataConfig, SourceConfig
from harness.data import open_data, update_example_hash
sources = {name: SourceConfig(path) for name, path in (pair.split("=") for pair in sys.argv[1:])}
sampler = open_data(DataConfig("test", sources, "byte", sequence_length=16, holdout=0.2)).sampler(8, 3)
hash = ""
for t in range(20):
    hash = update_example_hash(hash, sampler.batch(t).ids_B)
print(hash)
"""


def test_another_process_with_its_sources_listed_otherwise_reads_the_same(configure):
    config = configure({"a": 1, "b": 1})
    here, sampler = "", open_data(config).sampler(8, 3)
    for t in range(20):
        here = update_example_hash(here, sampler.batch(t).ids_B)
    pairs = [f"{name}={config.sources[name].path}" for name in ("b", "a")]
    there = subprocess.run(
        [sys.executable, "-c", PROCESS, *pairs], capture_output=True, text=True, check=True
    )
    assert there.stdout.strip() == here


def test_other_weights_keep_the_examples_of_a_source(configure):
    """Whatever the weights and siblings, a source gives its examples in one order."""
    even, skewed = (text_corpus(configure(mix)) for mix in ({"a": 1, "b": 1}, {"a": 1, "b": 7, "c": 2}))
    for domain in (0, 1):
        pair = [ids_of(corpus, domain, steps=60) for corpus in (even, skewed)]
        shared = min(map(len, pair))
        assert shared > 30
        assert pair[0][:shared] == pair[1][:shared]


def test_other_tokens_never_share_an_id(configure, tmp_path):
    """So that the rolling hash differs as soon as the text, the tokenizer or the window does."""
    config = configure({"a": 1})
    corpora = [text_corpus(config)]
    for change in ({"tokenizer": "bpe512"}, {"sequence_length": 8}, {"holdout": 0.3}):
        corpora.append(text_corpus(configure({"a": 1}, **change)))
    write(Path(config.sources["a"].path), [*documents("a"), "more"])
    corpora.append(text_corpus(config))
    ids = [set(ids_of(corpus, 0, 20)) for corpus in corpora]
    assert len(set.union(*ids)) == sum(map(len, ids))


def test_two_sources_of_one_file_share_no_id(configure):
    config = configure({"a": 1})
    config.sources["b"] = config.sources["a"]
    corpus = text_corpus(config)
    assert set(ids_of(corpus, 0, 20)).isdisjoint(ids_of(corpus, 1, 20))


def test_a_held_out_document_is_never_trained_on(tmp_path):
    """Not even where another source holds a copy of it."""
    ours, theirs = documents("a"), documents("b")
    sources = {
        "one": SourceConfig(str(write(tmp_path / "one.txt", ours + theirs[:60]))),
        "two": SourceConfig(str(write(tmp_path / "two.txt", theirs))),
    }
    corpus = text_corpus(DataConfig("test", sources, "byte", sequence_length=T, holdout=0.2))
    train, held = set(), set()
    for domain in corpus.domains:
        train |= marks(domain.train.tokens.read())
        held |= marks(domain.heldout.tokens.read())
    assert train.isdisjoint(held)
    assert len(train | held) == 240
    assert 24 < len(held) < 72


def marks(tokens: np.ndarray) -> set[bytes]:
    """The mark at the start of each document."""
    texts = bytes(np.where(tokens == 256, 0, tokens).astype(np.uint8)).split(b"\0")
    return {text.split(b"]")[0] for text in texts if text}


@pytest.mark.parametrize("tokenizer", ["byte", "bpe512"])
def test_held_out_windows(configure, tokenizer):
    corpus = text_corpus(configure({"a": 3, "b": 1}, tokenizer=tokenizer))
    heldout = corpus.heldout(T * 10 + 3)
    assert list(heldout) == ["a", "b"]
    for part in heldout.values():
        assert part.tokens_NT.shape == (10, T + 1)
        texts = [t for t in part.tokens_NT[:, 1:].ravel() if t != corpus.codec.end_token]
        assert part.bytes == sum(corpus.codec.byte_lengths_V[t] for t in texts)
        assert len(np.unique(part.tokens_NT, axis=0)) == 10


def test_held_out_windows_are_those_of_the_held_out_documents(configure):
    for name, part in open_data(configure({"a": 1, "b": 1})).heldout(T * 10).items():
        assert set(map(tuple, part.tokens_NT.tolist())) <= set(windows(name, held=True))
        predicted = part.tokens_NT[:, 1:]
        assert part.bytes == (predicted != 256).sum()


def test_more_held_out_tokens_hold_those_of_fewer_and_weights_do_not_matter(configure):
    few = open_data(configure({"a": 1, "b": 1})).heldout(T * 5)
    more = open_data(configure({"a": 9, "b": 1})).heldout(T * 12)
    for name in few:
        assert np.array_equal(few[name].tokens_NT, more[name].tokens_NT[:5])


def test_roll_is_a_chain_of_sha256():
    one, two = np.array([1, 2**63], np.uint64), np.array([3], np.uint64)
    first = hashlib.sha256((1).to_bytes(8, "little") + (2**63).to_bytes(8, "little")).digest()
    assert update_example_hash("", one) == first.hex()
    assert (
        update_example_hash(update_example_hash("", one), two)
        == hashlib.sha256(first + (3).to_bytes(8, "little")).hexdigest()
    )


def test_a_seed_means_the_same_for_ever(configure):
    """Changing this hash changes what every recorded run has read."""
    sampler = open_data(configure({"a": 1, "b": 1}, tokenizer="bpe512")).sampler(4, 0)
    digest = hashlib.sha256(b"".join(sampler.batch(t).tokens_BT.tobytes() for t in range(4)))
    assert digest.hexdigest()[:16] == "cf74b0f190ee2b2e"


def test_the_shipped_configs_are_whole():
    for name, domains in (("prose_code", 2), ("pack", 4)):
        file = Path(__file__).parents[2] / "conf" / "data" / f"{name}.yaml"
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(DataConfig), OmegaConf.load(file)))
        assert isinstance(config, DataConfig)
        facts = describe_data(config, eval_tokens=16_384)
        assert (config.name, len(facts.domains), facts.vocabulary) == (name, domains, 512)


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_processes_read_their_own_rows_of_the_same_batch(configure, parts):
    corpus = open_data(configure({"a": 1, "b": 2}))
    owner_B = np.arange(16) // 2 % parts
    for t in (0, 7):
        whole = corpus.sampler(16, 3).batch(t)
        each = [corpus.sampler(16, 3, owner_B == part).batch(t) for part in range(parts)]
        for part, batch in enumerate(each):
            assert not batch.tokens_BT[owner_B != part].any()
            assert np.array_equal(batch.ids_B, whole.ids_B), "the rolling hash is that of the whole batch"
        assert np.array_equal(sum(batch.tokens_BT for batch in each), whole.tokens_BT)


def test_a_process_without_rows_of_a_source_reads_nothing_of_it(configure):
    corpus = text_corpus(configure({"a": 1, "b": 1}))
    salts = np.array([domain.salt for domain in corpus.domains], np.uint64)
    whole = corpus.sampler(8, 0).batch(0)
    of_first_B = (whole.ids_B - salts[0]) < len(corpus.domains[0].train)
    assert 0 < of_first_B.sum() < 8
    alone = corpus.sampler(8, 0, of_first_B).batch(0)
    assert np.array_equal(alone.tokens_BT[of_first_B], whole.tokens_BT[of_first_B])
    assert not alone.tokens_BT[~of_first_B].any()
