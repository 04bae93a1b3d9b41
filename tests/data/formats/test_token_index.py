"""The index of files of tokens: documents over several files, whole files, resumption, and many readers."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import extend
from harness.config.schema.data import SourceConfig
from harness.core.cache.cache_entries import take_notes
from harness.core.errors import UserError
from harness.data.codecs.codec import UnknownCodec
from harness.data.formats import file_index, open_token_files, source_index
from harness.data.formats.open_token_files import (
    find_token_source,
    is_ready,
    is_token_source,
    measure_token_files,
)
from harness.data.formats.open_token_files import open_token_files as open_files
from harness.data.formats.token_format import TOKEN_FORMATS
from harness.data.text_sources.split import Split
from harness.data.tokens import cached_arrays, token_sequence
from tests.data.formats.write_formats import END, VOCABULARY, make_documents, with_ends, write_llm_c

CODEC, NO_END = UnknownCodec(VOCABULARY, END), UnknownCodec(VOCABULARY, None)
TOKENS = with_ends(make_documents(200, longest=60))


def shards(folder: Path, count: int = 6) -> SourceConfig:
    folder.mkdir(exist_ok=True)
    for number, tokens in enumerate(np.array_split(TOKENS, count)):
        write_llm_c(folder / f"{number}.bin", tokens)
    return SourceConfig(str(folder))


def documents_of(tokens: np.ndarray) -> list[bytes]:
    """The documents that are not empty, by a plain loop."""
    documents, document = [], []
    for token in [*tokens.tolist(), END]:
        if token != END:
            document.append(token)
        elif document:
            documents.append(np.array(document, "<u4").tobytes())
            document = []
    return documents


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_documents_are_found_however_files_cut_them(data, tmp_path_factory):
    """Runs and chunks of few tokens, empty documents, files of one piece, no end at the end."""
    draw = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    tokens = draw.choice([1, 2, 3, END], data.draw(st.integers(1, 60)), p=[0.3, 0.3, 0.2, 0.2])
    places = data.draw(st.lists(st.integers(0, len(tokens)), max_size=6))
    folder = tmp_path_factory.mktemp("shards")
    for number, shard in enumerate(np.split(tokens, sorted(places))):
        write_llm_c(folder / f"{number:02}.bin", shard)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_sequence, "RUN_TOKENS", data.draw(st.integers(1, 9)))
        patch.setattr(source_index, "CHUNK_PIECES", data.draw(st.integers(1, 5)))
        index = source_index.index_source(find_token_source("s", SourceConfig(str(folder))), END, 0.5)
    texts = documents_of(tokens)
    sides = documents_of(index.train.read()), documents_of(index.heldout.read())
    draws = [hashlib.sha256(text).digest()[0] for text in texts]
    assert sides[0] == [text for text, draw in zip(texts, draws, strict=True) if draw >= 128]
    assert sides[1] == [text for text, draw in zip(texts, draws, strict=True) if draw < 128]
    assert (index.num_documents[0], index.num_documents[1]) == (len(sides[0]), len(sides[1]))
    lengths = [len(text) // 4 + 1 for text in sides[0]]
    assert index.starts_D.tolist() == np.cumsum([0, *lengths])[:-1].tolist()


def test_whole_files_are_held_out_where_nothing_tells_documents(tmp_path):
    source = find_token_source("s", shards(tmp_path / "a"))
    tokens = open_files(source, NO_END, 0.3)
    sizes = measure_token_files(source, NO_END, 0.3, index=True)
    assert sizes.split is Split.files
    assert (sizes.train.documents, sizes.heldout.documents) == (4, 2)
    files = {shard.tobytes() for shard in np.array_split(TOKENS, 6)}
    heldout = np.split(tokens.heldout.read(), [len(tokens.heldout) // 2])
    assert all(shard.astype(np.int64).tobytes() in files for shard in heldout)
    assert len(tokens.train) + len(tokens.heldout) == len(TOKENS)
    assert tokens.starts_D is None


def test_the_last_tokens_of_one_file_are_held_out_where_nothing_tells_documents(tmp_path):
    source = find_token_source("s", SourceConfig(str(write_llm_c(tmp_path / "a.bin", TOKENS))))
    tokens = open_files(source, NO_END, 0.25)
    cut = len(TOKENS) - len(TOKENS) // 4
    assert np.array_equal(tokens.train.read(), TOKENS[:cut])
    assert np.array_equal(tokens.heldout.read(), TOKENS[cut:])


def test_one_document_is_divided_at_a_place_in_it(tmp_path):
    source = find_token_source("s", SourceConfig(str(write_llm_c(tmp_path / "a.bin", np.arange(400)))))
    tokens = open_files(source, CODEC, 0.25)
    assert tokens.train.read().tolist() == [*range(301)]
    assert tokens.heldout.read().tolist() == [*range(301, 400), END]
    assert measure_token_files(source, CODEC, 0.25, index=True).split is Split.tails


def test_a_validation_file_is_held_out_and_all_else_is_trained_on(tmp_path):
    config = shards(tmp_path / "a")
    np.save(tmp_path / "val.npy", TOKENS[:500])
    config.validation = str(tmp_path / "val.npy")
    source = find_token_source("s", config)
    tokens = open_files(source, CODEC, 0.5)
    assert np.array_equal(tokens.train.read(), TOKENS)
    assert documents_of(tokens.heldout.read()) == documents_of(TOKENS[:500])
    assert measure_token_files(source, CODEC, 0.5, index=True).split is Split.validation


def test_a_large_source_is_measured_at_once_and_marked_so(tmp_path, monkeypatch):
    source = find_token_source("s", shards(tmp_path / "a"))
    monkeypatch.setattr(open_token_files, "SMALL_BYTES", 100)
    monkeypatch.setattr(file_index, "_index_file", lambda task: pytest.fail("tokens were read"))
    sizes = measure_token_files(source, CODEC, 0.1, index=False)
    assert sizes.is_sampled
    assert sizes.train.tokens == len(TOKENS) - round(0.1 * len(TOKENS))
    assert 150 < sizes.train.documents < 250
    monkeypatch.undo()


def test_a_killed_index_continues_at_the_file(tmp_path, monkeypatch):
    source = find_token_source("s", shards(tmp_path / "a"))
    whole, done = file_index._index_file, []

    def interrupted(task):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(task.file.name)
        whole(task)

    monkeypatch.setattr(file_index, "_index_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_files(source, CODEC, 0.1)
    again = []
    monkeypatch.setattr(file_index, "_index_file", lambda task: (again.append(task.file.name), whole(task)))
    open_files(source, CODEC, 0.1)
    assert (done, again) == (["0.bin", "1.bin", "2.bin", "3.bin"], ["4.bin", "5.bin"])


def test_only_a_changed_file_is_read_again(tmp_path, monkeypatch):
    config = shards(tmp_path / "a")
    before = open_files(find_token_source("s", config), CODEC, 0.1).key
    write_llm_c(tmp_path / "a" / "3.bin", TOKENS[:77])
    whole, again = file_index._index_file, []
    monkeypatch.setattr(file_index, "_index_file", lambda task: (again.append(task.file.name), whole(task)))
    assert open_files(find_token_source("s", config), CODEC, 0.1).key != before
    assert again == ["3.bin"]


def test_an_opening_waits_for_no_lock(tmp_path, cache):
    source = find_token_source("s", shards(tmp_path / "a"))
    before = open_files(source, CODEC, 0.1)
    assert is_ready(source, CODEC, 0.1)
    locks = [path.open("a") for path in (cache / "token_index").glob("*.lock")]
    for lock in locks:
        fcntl.flock(lock, fcntl.LOCK_EX)
    assert locks
    assert open_files(source, CODEC, 0.1).key == before.key


def test_changed_arrays_are_made_again_and_it_is_said(tmp_path, cache):
    source = find_token_source("s", shards(tmp_path / "a"))
    before = open_files(source, CODEC, 0.1).train.read()
    (largest,) = [path for path in (cache / "token_index").glob("*.arrays") if (path / "train_end").exists()]
    (largest / "train_end").write_bytes(b"")
    take_notes()
    assert np.array_equal(open_files(source, CODEC, 0.1).train.read(), before)
    assert any("it is made again" in note for note in take_notes())


def test_processes_give_the_same_index(tmp_path, monkeypatch):
    source = find_token_source("s", shards(tmp_path / "a", 3))
    monkeypatch.setattr(file_index, "PARALLEL_BYTES", 0)
    tokens = open_files(source, CODEC, 0.1)
    monkeypatch.setenv("AB_HARNESS_CACHE", str(tmp_path / "another"))
    monkeypatch.setattr(file_index, "PARALLEL_BYTES", 2**40)
    serial = open_files(source, CODEC, 0.1)
    assert tokens.key == serial.key
    assert np.array_equal(tokens.train.read(), serial.train.read())


def _opened_key(folder: str) -> str:
    return open_files(find_token_source("s", SourceConfig(folder)), CODEC, 0.1).key


@pytest.mark.slow
def test_processes_that_open_a_new_source_at_once_index_it_once(tmp_path):
    shards(tmp_path / "a")
    with ProcessPoolExecutor(3, multiprocessing.get_context("spawn")) as pool:
        keys = {*pool.map(_opened_key, [str(tmp_path / "a")] * 3)}
    assert keys == {_opened_key(str(tmp_path / "a"))}


def test_a_format_of_ones_own_is_recognised_and_refuses_in_one_sentence(tmp_path):
    name = "own_test_format"

    @dataclass(frozen=True)
    class Options:
        skip: int = 0

    class Own(extend.TokenReader):
        options: Options

        def open(self, file: Path, column: str) -> extend.FileTokens:
            size = file.stat().st_size - self.options.skip
            if size < 0:
                raise extend.TokenFileError("is cut short. Set data.sources.NAME.options.skip=0.")
            part = extend.TokenFile(file, self.options.skip, np.dtype(np.uint8), size)
            return extend.FileTokens((part,), lambda: np.array([0, 3]))

    extend.register_token_format(name, Options, suffixes=(".own",))(Own)
    try:
        (tmp_path / "a.own").write_bytes(bytes([9, 9, 1, 2, 3, 4, 5]))
        config = SourceConfig(str(tmp_path / "a.own"), options={"skip": 2})
        index = source_index.index_source(find_token_source("s", config), 7, 0.0)
        assert index.train.read().tolist() == [1, 2, 3, 7, 4, 5, 7]
        config.options = {"skip": 9}
        with pytest.raises(UserError, match=r"cut short\. Set data\.sources\.s\.options\.skip=0"):
            find_token_source("s", config)
    finally:
        del TOKEN_FORMATS.entries[name]


def test_a_full_cache_disk_is_told_and_nothing_is_left(tmp_path, cache, monkeypatch):
    source = find_token_source("s", shards(tmp_path / "a"))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(cached_arrays.ArrayWriter, "append", full)
        with pytest.raises(UserError, match=r"the cache folder cannot be used \(No space left"):
            open_files(source, CODEC, 0.1)
    assert not [*(cache / "token_index").glob("*.building")]
    assert len(open_files(source, CODEC, 0.1).train)


def test_a_file_that_becomes_shorter_while_it_is_read_is_told(tmp_path):
    path = tmp_path / "a.bin"
    TOKENS.astype("<u2").tofile(path)
    config = SourceConfig(str(path), format="nanogpt", options={"dtype": "uint16"})
    source = find_token_source("s", config)
    (task,) = source.index_tasks(END)
    tokens = source.samples[0]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="it has become shorter"):
        list(file_index._runs(task, tokens))


@pytest.mark.parametrize(
    ("files", "holds_tokens"),
    [
        (["a.npy", "meta.json"], True),
        (["a.npy", "a.txt"], False),
        (["a.jsonl", "model.bin"], False),
        (["sub/a.bin"], True),
        (["README.md"], False),
        (["a.json"], False),
        (["set/state.json", "set/a.arrow"], True),
        (["set/state.json", "set/a.arrow", "a.jsonl"], False),
    ],
)
def test_a_folder_holds_tokens_if_no_text_lies_in_it(files, holds_tokens, tmp_path):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"_data_files": [{"filename": "a.arrow"}]}')
    assert is_token_source(SourceConfig(str(tmp_path))) is holds_tokens
