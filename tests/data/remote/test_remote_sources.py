"""Sources behind URLs: listed as folders are, fetched once, resumed, checked, and read without a network."""

from __future__ import annotations

import gzip
import json
import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.config.schema.data import DataConfig, SourceConfig
from harness.core.cache.cache_dir import cache_root
from harness.core.errors import UserError
from harness.data import describe_data, open_data
from harness.data.documents import parquet_rows
from harness.data.remote import fetch_file, fetch_listing, remote_files, store_listing
from harness.data.text import measure_source, training_source
from harness.data.text.training_source import find_training_sources
from harness.data.text_sources import source as sources
from harness.data.text_sources import source_hash
from harness.data.text_sources.source import Source, find_source
from harness.data.text_sources.source_sample import sample_source

from .web_server import WebFiles, serve

STORE = "memory://bucket/data"


@pytest.fixture
def store() -> Iterator[fsspec.AbstractFileSystem]:
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pipe("/bucket/data/b/c.jsonl", b'{"text": "third"}\n')
    memory.pipe("/bucket/data/a.txt", b"first\n<|endoftext|>\nsecond")
    yield memory
    memory.store.clear()


@pytest.fixture
def web() -> Iterator[WebFiles]:
    pytest.importorskip("aiohttp", reason="needs aiohttp: pip install aiohttp")
    with serve(WebFiles({"data/a.txt": b"first\n<|endoftext|>\nsecond", "data/b/c.txt": b"third"})) as web:
        yield web


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(fetch_file, "WAIT_SECONDS", 0.01)
    monkeypatch.setattr(fetch_listing, "LISTING_SECONDS", -1.0)


def source(url: str) -> Source:
    return find_source("s", SourceConfig(url))


def read(url: str) -> list[str]:
    return list(source(url).documents())


def said(url: str) -> str:
    with pytest.raises(UserError) as caught:
        read(url)
    return str(caught.value)


@pytest.mark.parametrize(
    ("url", "texts"),
    {
        STORE: ["first", "second", "third"],
        f"{STORE}/": ["first", "second", "third"],
        f"{STORE}/a.txt": ["first", "second"],
        f"{STORE}/*.txt": ["first", "second"],
        f"{STORE}/*/*.jsonl": ["third"],
        "memory://bucket/**/*.jsonl": ["third"],
    }.items(),
)
def test_a_url_is_read_like_a_path(store, url, texts):
    assert read(url) == texts
    assert source(url).path == url


def test_a_bucket_is_laid_out_like_a_folder(store):
    for name in (".hidden.txt", "README.md", "b/_SUCCESS", "a.txt.gz", "dataset_infos.json"):
        store.pipe(f"/bucket/data/{name}", b"{}")
    assert read(STORE) == ["first", "second", "third"]
    assert source(STORE).skipped == (
        "1 hidden (.hidden.txt)",
        "1 left by editors or systems (b/_SUCCESS)",
        "1 that describe the data (dataset_infos.json)",
        "1 compressed beside its plain file (a.txt.gz)",
        "1 of another kind (README.md)",
    )


@pytest.mark.parametrize(
    ("url", "folder"),
    {
        "s3://b/x": "s3://b/x",
        "s3://b/x/": "s3://b/x",
        "s3://b/x/a.txt": "s3://b/x",
        "s3://b/x/*/a?.txt": "s3://b/x",
        "s3://b/x/[ab].txt": "s3://b/x",
        "s3://b/x/out.parquet/": "s3://b/x",
        "https://h/x/a.txt?sign=a/b*c": "https://h/x",
        "https://h/x/*.txt": "https://h/x",
    }.items(),
)
def test_copies_of_a_folder_are_shared_by_whatever_names_its_files(url, folder):
    assert store_listing.folder_url(url) == folder


def test_folders_with_suffixes_keep_their_copies_apart(store):
    """As Spark writes tables."""
    for name in ("x.parquet", "y.parquet"):
        pq.write_table(pa.table({"text": [name]}), sink := pa.BufferOutputStream())
        store.pipe(f"/bucket/{name}/part-0.parquet", sink.getvalue().to_pybytes())
    for _ in range(2):
        assert read("memory://bucket/x.parquet") == ["x.parquet"]
        assert read("memory://bucket/y.parquet/") == ["y.parquet"]
    assert len([*cache_root().glob("sources/*/files/*/part-0.parquet")]) == 2


def test_a_web_folder_is_read(web):
    assert read(f"{web.url}/data") == ["first", "second", "third"]
    assert read(f"{web.url}/data/a.txt") == ["first", "second"]
    assert read(f"{web.url}/data/a.txt?download=true") == ["first", "second"]
    assert read(f"{web.url}/data/*.txt") == ["first", "second"]


def test_a_web_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one(web):
    web.closed = "data/b"
    for url in (f"{web.url}/data", f"{web.url}/data/*/*.txt"):
        assert "cannot be reached" in said(url) or "may not be read" in said(url)


def test_many_configs_ask_a_store_once(store, monkeypatch):
    monkeypatch.setattr(fetch_listing, "LISTING_SECONDS", 60.0)
    calls, real = [], fetch_listing.list_store
    monkeypatch.setattr(fetch_listing, "list_store", lambda *args: calls.append(args) or real(*args))
    assert [read(f"{STORE}/b") for _ in range(5)] == [["third"]] * 5
    assert len(calls) == 1


def test_a_file_that_two_threads_want_is_fetched_once(store, monkeypatch):
    calls, real = [], fetch_file._fetch_part
    monkeypatch.setattr(fetch_file, "_fetch_part", lambda *args: calls.append(args) or real(*args))
    with ThreadPoolExecutor(8) as pool:
        assert [*pool.map(read, [STORE] * 8)] == [["first", "second", "third"]] * 8
    assert len(calls) == 2


def test_a_full_disk_is_told_and_what_arrived_is_kept(store, monkeypatch):
    monkeypatch.setattr(fetch_file, "CHUNK_BYTES", 8)
    numbers = iter([0, 0, 28, 28, *[0] * 9])

    def fsync(_):
        if number := next(numbers):
            raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(fetch_file.os, "fsync", fsync)
        assert "the disk of the cache is full. Free some space, or set" in said(f"{STORE}/a.txt")
    (part,) = cache_root().glob("sources/*/parts/*.part")
    assert part.stat().st_size >= 16
    assert read(f"{STORE}/a.txt") == ["first", "second"]


def test_a_file_is_fetched_once_and_again_when_it_changes(web, capsys):
    url = f"{web.url}/data/a.txt"
    read(url)
    num_sent = web.num_sent
    assert (read(url), web.num_sent) == (["first", "second"], num_sent)
    web.files["data/a.txt"] = b"FIRST\n<|endoftext|>\nsecond"
    assert read(url) == ["FIRST", "second"]
    assert "a.txt has changed since it was fetched, so it is fetched again" in capsys.readouterr().err


def test_a_copy_that_was_changed_here_is_fetched_again(store):
    (copy,) = source(f"{STORE}/a.txt").files
    copy.write_bytes(b"meddled")
    os.utime(copy, (1, 1))
    assert read(f"{STORE}/a.txt") == ["first", "second"]


def test_without_a_network_the_copy_is_used_and_that_is_said(web, capsys):
    pytest.importorskip("aiohttp")
    url = f"{web.url}/data"
    with serve(WebFiles({"data/a.txt": b"kept"})) as other:
        gone = f"{other.url}/data"
        assert read(gone) == ["kept"]
    assert read(gone) == ["kept"]
    err = capsys.readouterr().err
    assert f"data.sources.s.path={gone} cannot be reached (" in err
    assert "is used meanwhile." in err
    web.status = 403
    assert "may not be read with your credentials" in said(url)


CONTENT = random.Random(1).randbytes(10_000).hex().encode()


def test_a_fetch_that_broke_is_resumed_where_it_ended(web, monkeypatch):
    monkeypatch.setattr(fetch_file, "CHUNK_BYTES", 4000)
    web.files["data/a.txt"] = CONTENT
    web.cut_after = 10_000
    with monkeypatch.context() as patch:
        patch.setattr(fetch_file, "MAX_TRIES", 1)
        message = said(f"{web.url}/data/a.txt")
    assert message.startswith(f"data.sources.s.path={web.url}/data/a.txt cannot be reached (")
    web.num_sent = 0
    assert read(f"{web.url}/data/a.txt") == [CONTENT.decode()]
    assert web.num_sent == len(CONTENT) - 8000


def test_a_short_failure_of_the_network_is_outlived(web, monkeypatch):
    monkeypatch.setattr(fetch_file, "CHUNK_BYTES", 4000)
    web.files["data/a.txt"] = CONTENT
    web.cut_after = 5000
    assert read(f"{web.url}/data/a.txt") == [CONTENT.decode()]


def test_a_part_of_another_version_is_not_continued(store, monkeypatch):
    monkeypatch.setattr(fetch_file, "CHUNK_BYTES", 8)
    real, left = fetch_listing._Fetching.alive, [2]

    def alive(fetching, num_bytes):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        real(fetching, num_bytes)

    monkeypatch.setattr(fetch_listing._Fetching, "alive", alive)
    store.pipe("/bucket/data/a.txt", b"old " * 20)
    with pytest.raises(KeyboardInterrupt):
        read(f"{STORE}/a.txt")
    store.pipe("/bucket/data/a.txt", b"new " * 20)
    assert read(f"{STORE}/a.txt") == ["new " * 20]
    assert not [*cache_root().glob("sources/*/parts/*.part")]


def test_a_server_without_ranges_is_read_from_the_begin(web, monkeypatch):
    monkeypatch.setattr(fetch_file, "CHUNK_BYTES", 4000)
    web.has_ranges = False
    web.files["data/a.txt"] = CONTENT
    assert read(f"{web.url}/data/a.txt") == [CONTENT.decode()]


def test_a_file_that_arrives_damaged_is_refused(store, monkeypatch):
    sums = {"sha256:" + "0" * 64: "its sha256", "md5:" + "0" * 32: "its md5"}
    for digest, words in sums.items():
        monkeypatch.setattr(store_listing, "_digest", lambda _, digest=digest: digest)
        assert f"a.txt arrives damaged ({words} is not that of the store)" in said(f"{STORE}/a.txt")


def test_a_file_that_is_shorter_than_its_listing_is_refused(store):
    (file,) = store_listing.list_store(f"{STORE}/a.txt", bool).files
    with pytest.raises(UserError, match=r"^here: a.txt arrives with 26 bytes and not 100. Fetch it anew"):
        fetch_listing.fetch_files("here", f"{STORE}/a.txt", [replace(file, size=100)])


def test_a_file_that_changes_while_it_is_fetched_is_refused(store, monkeypatch):
    real = fetch_file._fetch_part

    def fetch(files, file, part, alive):
        real(files, file, part, alive)
        store.pipe("/bucket/data/a.txt", b"first\n<|endoftext|>\nSECOND")

    monkeypatch.setattr(fetch_file, "_fetch_part", fetch)
    assert "a.txt changes while it is fetched. Start again when it is complete." in said(f"{STORE}/a.txt")


def test_a_copy_without_room_is_refused_before_it_is_fetched(store, monkeypatch):
    monkeypatch.setattr(fetch_listing.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 3}))
    assert "its copy needs 26 bytes, and the disk of" in said(f"{STORE}/a.txt")


@pytest.mark.parametrize(
    ("url", "message"),
    {
        "memory://bucket/none": "does not exist. Check the host, bucket or repository, and the name.",
        "memory://bucket/data/*.parquet": "holds no readable file. Give .txt",
        "s4://bucket/data": "there is no protocol s4; did you mean 's3'?",
        "abfs://bucket/data": "abfs needs another package. Run `pip install adlfs`.",
    }.items(),
)
def test_urls_that_cannot_be_read_are_named(store, url, message):
    if url.startswith("abfs") and _has("adlfs"):
        pytest.skip("adlfs is installed")
    assert said(url).startswith(f"data.sources.s.path={url}")
    assert message in said(url)


def _has(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package) is not None


def test_answers_of_a_web_server_are_told_apart(web):
    assert "does not exist" in said(f"{web.url}/data/none.txt")
    for status in (401, 403):
        web.status = status
        assert "may not be read with your credentials, or needs some" in said(f"{web.url}/data/a.txt")


draw = random.Random(2)
TEXTS = [" ".join(draw.choices("abcdefgh", k=50)) + str(number) for number in range(20_000)]
LINES = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()


def test_nothing_is_fetched_but_the_begin_until_it_is_needed(web, monkeypatch):
    """The estimate comes from a part of the files, and the documents are those of the whole ones."""
    monkeypatch.setattr(sources, "FETCHED_BYTES", 10**4)
    monkeypatch.setattr(parquet_rows, "BATCH_BYTES", 2**15)
    monkeypatch.setattr(remote_files, "HEAD_BYTES", 2**15)
    monkeypatch.setattr(remote_files, "PACKED_HEAD_BYTES", 2**18)
    table = pa.table({"text": TEXTS, "n": range(len(TEXTS))})
    pq.write_table(table, small := pa.BufferOutputStream(), use_dictionary=False, data_page_size=2**14)
    web.files = {
        "data/a.txt": "\n<|endoftext|>\n".join(TEXTS).encode(),
        "data/b.jsonl.gz": gzip.compress(LINES, 1),
        "data/d.parquet": small.getvalue().to_pybytes(),
    }
    num_bytes = sum(map(len, web.files.values()))
    for name in web.files:
        remote = source(f"{web.url}/{name}")
        sample, size = sample_source(remote), sum(map(len, TEXTS))
        assert remote.files[0].stat().st_size == len(web.files[name])
        assert 0.8 < sample.text_bytes / size < 1.25, name
        assert 0.8 < sample.documents / len(TEXTS) < 1.25, name
    assert web.num_sent < 0.35 * num_bytes
    for name in web.files:
        assert list(source(f"{web.url}/{name}").fetched().documents()) == TEXTS
        assert source(f"{web.url}/{name}").remote is None


def test_a_file_whose_begin_is_not_enough_is_fetched_to_sample_it(web, monkeypatch):
    monkeypatch.setattr(sources, "FETCHED_BYTES", 10)
    monkeypatch.setattr(remote_files, "PACKED_HEAD_BYTES", 2**10)
    pq.write_table(pa.table({"text": TEXTS}), sink := pa.BufferOutputStream())
    web.files = {"data/a.parquet": sink.getvalue().to_pybytes(), "data/b.jsonl.gz": gzip.compress(LINES, 1)}
    for name in web.files:
        sample = sample_source(source(f"{web.url}/{name}"))
        assert 0.8 < sample.text_bytes / sum(map(len, TEXTS)) < 1.25, name


def test_copies_count_as_cache(store, cache):
    from harness.core.cache.cache_usage import cache_usage, clear_cache

    read(STORE)
    (usage,) = (usage for usage in cache_usage() if usage.kind == "sources")
    assert usage.bytes > 40
    clear_cache(["sources"])
    assert not list(Path(cache, "sources").glob("*/files"))


def test_a_corpus_behind_a_url_is_described_from_its_begin_and_trained_on_whole(store, monkeypatch, tmp_path):
    monkeypatch.setattr(sources, "FETCHED_BYTES", 10)
    for module in (source_hash, measure_source, training_source):
        monkeypatch.setattr(module, "SMALL_BYTES", 10)
    store.pipe("/bucket/data/a.txt", "\n<|endoftext|>\n".join(TEXTS[:2000]).encode())
    (tmp_path / "a.txt").write_bytes(store.cat("/bucket/data/a.txt"))
    remote, local = (
        DataConfig("d", {"s": SourceConfig(path)}, tokenizer="byte", sequence_length=16, holdout=0.2)
        for path in (f"{STORE}/a.txt", str(tmp_path / "a.txt"))
    )
    facts = describe_data(remote, 64)
    assert facts.sources["s"].is_sampled
    assert not [*cache_root().glob("sources/*/files")]
    (before,) = find_training_sources(remote)
    assert before.needs_build()
    corpora = [open_data(config) for config in (remote, local)]
    for of_remote, of_local in zip(*(corpus.heldout(256).values() for corpus in corpora), strict=True):
        assert (of_remote.tokens_NT == of_local.tokens_NT).all()
    batches = [corpus.sampler(4, data_seed=1).batch(0).tokens_BT for corpus in corpora]
    assert (batches[0] == batches[1]).all()
    assert not describe_data(remote, 64).sources["s"].is_sampled
    assert before.measure(trained=True) == find_training_sources(local)[0].measure(trained=True)
    assert not before.needs_build()


def test_files_of_tokens_behind_a_url_are_refused(store):
    sources_by_name = {"s": SourceConfig(STORE, format="nanogpt")}
    with pytest.raises(
        UserError, match=r"^data.sources.s.path=memory:.* so they cannot lie behind a URL. Copy"
    ):
        find_training_sources(DataConfig("d", sources_by_name, tokenizer="byte"))
