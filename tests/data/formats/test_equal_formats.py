"""The same documents in any format: the same tokens, batches, example ids and key, as an independent division
gives them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from harness.config.schema.data import DataConfig, SourceConfig
from harness.data.codecs.codec import UnknownCodec
from harness.data.formats.open_token_files import (
    check_token_sample,
    content_of,
    find_token_source,
    is_token_source,
    measure_token_files,
    open_token_files,
)
from harness.data.tokens.tokens import Tokens
from tests.data.conftest import text_corpus
from tests.data.formats.write_formats import END, VOCABULARY, WRITERS, make_documents, with_ends

CODEC, HOLDOUT = UnknownCodec(VOCABULARY, END), 0.2
DOCUMENTS = make_documents()


def is_heldout(document: np.ndarray) -> bool:
    digest = hashlib.sha256(document.astype("<u4").tobytes()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < HOLDOUT


def written(name: str, folder: Path, documents=DOCUMENTS) -> SourceConfig:
    (folder / name).mkdir()
    return WRITERS[name](folder / name, documents)


def opened(config: SourceConfig) -> Tokens:
    source = find_token_source("s", config)
    check_token_sample(source, CODEC)
    return open_token_files(source, CODEC, HOLDOUT)


@pytest.fixture(scope="module")
def sides() -> tuple[np.ndarray, np.ndarray]:
    train = [document for document in DOCUMENTS if not is_heldout(document)]
    heldout = [document for document in DOCUMENTS if is_heldout(document)]
    assert heldout
    return with_ends(train), with_ends(heldout)


@pytest.mark.parametrize("name", WRITERS)
def test_documents_are_divided_by_their_hash_and_end_with_the_end_token(name, tmp_path, sides):
    config = written(name, tmp_path)
    assert is_token_source(config)
    tokens = opened(config)
    assert np.array_equal(tokens.train.read(), sides[0])
    assert np.array_equal(tokens.heldout.read(), sides[1])
    starts = np.append(0, np.flatnonzero(sides[0] == END)[:-1] + 1)
    assert tokens.starts_D is not None
    assert np.array_equal(tokens.starts_D, starts)
    windows = tokens.train.windows(np.array([0, 17, 200]), 40)
    assert all(np.array_equal(w, sides[0][s : s + 40]) for w, s in zip(windows, (0, 17, 200), strict=True))


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "nanogpt"])
def test_batches_example_ids_and_content_are_those_of_any_other_format(name, tmp_path):
    corpora, contents = [], []
    for format_name in ("nanogpt", name):
        source = written(format_name, tmp_path)
        config = DataConfig(
            "test",
            {"s": source},
            tokenizer="none",
            vocabulary=VOCABULARY,
            end_token=END,
            sequence_length=16,
            holdout=HOLDOUT,
        )
        corpora.append(text_corpus(config))
        contents.append(content_of(find_token_source("s", source), CODEC))
    batches = [corpus.sampler(8, data_seed=3).batch(2) for corpus in corpora]
    assert np.array_equal(batches[0].tokens_BT, batches[1].tokens_BT)
    assert np.array_equal(batches[0].ids_B, batches[1].ids_B)
    heldout = [corpus.heldout(64)["s"].tokens_NT for corpus in corpora]
    assert np.array_equal(*heldout)
    assert contents[0] == contents[1]


@pytest.mark.parametrize("name", ["llm_c", "arrow_stream", "levanter"])
def test_another_document_changes_the_key_and_the_content(name, tmp_path):
    other = [*DOCUMENTS[:-1], DOCUMENTS[-1][::-1]]
    (tmp_path / "other").mkdir()
    configs = [written(name, tmp_path), written(name, tmp_path / "other", other)]
    sources = [find_token_source("s", config) for config in configs]
    assert len({content_of(source, CODEC) for source in sources}) == 2
    assert len({open_token_files(source, CODEC, HOLDOUT).key for source in sources}) == 2


@pytest.mark.parametrize("name", ["npy", "megatron", "arrow_slices"])
def test_sizes_are_counted(name, tmp_path, sides):
    source = find_token_source("s", written(name, tmp_path))
    sizes = measure_token_files(source, CODEC, HOLDOUT, index=False)
    assert (sizes.train.tokens, sizes.heldout.tokens) == (len(sides[0]), len(sides[1]))
    assert sizes.documents == len(DOCUMENTS)
    assert not sizes.is_sampled
