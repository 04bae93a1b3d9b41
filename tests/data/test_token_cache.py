import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.config.schema.data import SourceConfig
from harness.core.errors import UserError
from harness.data.codecs.codec import ByteCodec
from harness.data.codecs.tokenizer_file import load_tokenizer
from harness.data.shards.encoding import Encoding
from harness.data.shards.manifest import _entry as manifest_entry
from harness.data.text.token_cache import open_tokens
from harness.data.text_sources import source_hash
from harness.data.text_sources.source import find_source
from harness.data.text_sources.split import is_heldout
from harness.data.tokenizing import build_shards as build
from harness.data.tokenizing import encode_piece
from harness.data.tokens.tokens import Tokens

from .conftest import documents, write


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return write(tmp_path / "text.txt", documents("text"))


def tokens_of(path: Path, tokenizer: str = "byte", holdout: float = 0.2) -> Tokens:
    encoding = Encoding(tokenizer, load_tokenizer(tokenizer), holdout)
    return open_tokens(find_source("s", SourceConfig(str(path))), encoding)


def entries(folder: Path) -> list[Path]:
    return [path for path in (folder / "tokens").iterdir() if path.is_dir() and len(path.name) == 64]


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The entries built so far in this process."""
    built, real = [], build.finish_draft
    monkeypatch.setattr(build, "finish_draft", lambda job: (built.append(job.folder), real(job))[1])
    return built


@pytest.mark.parametrize("tokenizer", ["byte", "bpe512"])
def test_tokens_are_the_documents_each_ended(text, tokenizer):
    codec = load_tokenizer(tokenizer)
    streams = {True: [], False: []}
    for document in documents("text"):
        streams[is_heldout(document, 0.2)] += [*codec.encode([document])[0].tolist(), codec.end_token]
    tokens = tokens_of(text, tokenizer)
    assert tokens.train.read().tolist() == streams[False]
    assert tokens.heldout.read().tolist() == streams[True]
    assert next(tokens.train.runs()).dtype == np.uint16
    assert len(streams[True]) > 0


def test_the_size_of_portions_does_not_matter(text, tmp_path, monkeypatch):
    whole = tokens_of(text)
    monkeypatch.setenv("AB_HARNESS_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(encode_piece, "ENCODE_CHARACTERS", 1)
    assert np.array_equal(whole.train.read(), tokens_of(text).train.read())
    assert np.array_equal(whole.heldout.read(), tokens_of(text).heldout.read())


def test_tokens_are_built_once_and_opened_without_a_lock(text, builds, monkeypatch):
    first = tokens_of(text)
    monkeypatch.setattr(build, "hold_lock", None)
    second = tokens_of(text)
    assert len(builds) == 1
    assert np.array_equal(first.train.read(), second.train.read())
    ends = np.flatnonzero(first.train.read() == ByteCodec.end_token)
    assert first.starts_D.tolist() == [0, *(ends[:-1] + 1)]


def test_whatever_changes_the_tokens_changes_the_entry(text, builds):
    keys = {tokens_of(text).key, tokens_of(text, "bpe512").key, tokens_of(text, holdout=0.3).key}
    write(text, [*documents("text"), "one more"])
    keys.add(tokens_of(text).key)
    assert len(builds) == len(keys) == 4


def test_a_copy_elsewhere_shares_the_entry(text, tmp_path, builds):
    (tmp_path / "folder").mkdir()
    copy = tmp_path / "folder" / "copy.txt"
    copy.write_bytes(text.read_bytes())
    assert tokens_of(copy).key == tokens_of(text).key == tokens_of(tmp_path / "folder").key
    assert len(builds) == 1


def test_the_same_bytes_read_another_way_are_another_content(tmp_path):
    hashes = set()
    for name in ("a.txt", "a.jsonl"):
        (tmp_path / name).write_text('{"text": "one"}\n')
        hashes.add(source_hash.content_hash(find_source("s", SourceConfig(str(tmp_path / name)))))
    assert len(hashes) == 2


def test_a_file_is_hashed_once_a_version(text, monkeypatch):
    hashed, real = [], source_hash.file_tree_hash
    monkeypatch.setattr(source_hash, "file_tree_hash", lambda path: (hashed.append(path), real(path))[1])
    first = source_hash.content_hash(find_source("s", SourceConfig(str(text))))
    assert source_hash.content_hash(find_source("s", SourceConfig(str(text)))) == first
    assert len(hashed) == 1
    state = text.stat()
    text.write_bytes(text.read_bytes().replace(b"attention", b"attentive", 1))  # of the same size
    os.utime(text, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert source_hash.content_hash(find_source("s", SourceConfig(str(text)))) != first
    assert len(hashed) == 2
    monkeypatch.setattr(source_hash, "FORMAT", source_hash.FORMAT + 1)
    source_hash.content_hash(find_source("s", SourceConfig(str(text))))
    assert len(hashed) == 3, "what an earlier version of the code remembered may mean something else"


def shard(entry: Path, end: str) -> Path:
    (file,) = entry.glob(f"*.{end}")
    return file


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a truncated split": lambda entry: os.truncate(shard(entry, "train.bin"), 100),
    "a lost split": lambda entry: shard(entry, "heldout.bin").unlink(),
    "a flipped bit": lambda entry: flip(shard(entry, "train.bin"), 1501),
    "a flipped bit of the header": lambda entry: flip(shard(entry, "train.bin"), 9),
    "a lost record": lambda entry: (shard(entry, "train.bin").unlink(), shard(entry, "json").unlink()),
    "cut places of documents": lambda entry: os.truncate(entry / "train.starts", 24),
    "another place of a document": lambda entry: flip(entry / "train.starts", 9),
    "lost places of documents": lambda entry: (entry / "train.starts").unlink(),
    "a cut manifest": lambda entry: os.truncate(manifest(entry), 40),
    "an edited manifest": lambda entry: edit(manifest(entry), '"crc32": ', '"crc32": 1'),
    "a manifest of another shape": lambda entry: manifest(entry).write_text("[]"),
    "a lost manifest": lambda entry: manifest(entry).unlink(),
    "a lost folder": lambda entry: entry.rename(entry.with_name("elsewhere")),
}


def manifest(entry: Path) -> Path:
    return manifest_entry(entry.name).path


def flip(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 4
    file.write_bytes(content)


def edit(file: Path, old: str, new: str) -> None:
    file.write_text(file.read_text().replace(old, new))


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_entry_is_built_again(text, cache, builds, damage):
    first = tokens_of(text)
    before, starts = first.train.read(), first.starts_D.tolist()
    (entry,) = entries(cache)
    damage(entry)
    again = tokens_of(text)
    assert np.array_equal(again.train.read(), before)
    assert again.starts_D.tolist() == starts
    assert len(builds) == 2
    tokens_of(text)
    assert len(builds) == 2


def test_a_copied_cache_is_compared_byte_by_byte_once(text, cache, builds, monkeypatch):
    before = tokens_of(text).train.read()
    (entry,) = entries(cache)
    for file in entry.iterdir():
        content = file.read_bytes()
        file.unlink()
        file.write_bytes(content)
    assert np.array_equal(tokens_of(text).train.read(), before)
    assert len(builds) == 1
    monkeypatch.setattr("harness.data.shards.manifest.is_intact", None)
    tokens_of(text)


OPEN = """
import os, signal, sys, time
from pathlib import Path
from harness.core.errors import UserError
from harness.config.schema.data import SourceConfig
from harness.data.tokenizing import build_shards, encode_piece
from harness.data.shards.encoding import Encoding
from harness.data.text import token_cache as cache
from harness.data.text_sources.source import find_source
from harness.data.codecs.codec import ByteCodec
path, log, rival = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
{patch}
Path(log).write_text("open")
tokens = cache.open_tokens(find_source("s", SourceConfig(str(path))), Encoding("byte", ByteCodec(), 0.2))
print(len(tokens.train), int(tokens.train.read().sum()))
"""

SLOW_BUILD = """
build = build_shards.build_pieces
def slow(*args):
    print("built", end=" ")
    while not rival.exists():
        time.sleep(0.01)
    time.sleep(0.2)
    build(*args)
build_shards.build_pieces = slow
"""

KILLED_BUILD = """
from harness.data.shards.shard_file import ShardWriter
add, texts = ShardWriter.add, []
def killed(writer, *args):
    texts.append(args)
    if len(texts) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    add(writer, *args)
ShardWriter.add = killed
"""


def start(patch: str, *paths: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", OPEN.format(patch=patch), *map(str, paths)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_text_that_changes_while_it_is_read_is_refused(text, cache, monkeypatch):
    real = ByteCodec.encode
    monkeypatch.setattr(
        ByteCodec, "encode", lambda codec, texts: (write(text, ["other text"]), real(codec, texts))[1]
    )
    with pytest.raises(UserError, match=r"data.sources.s.path=.*changed while it was read\. "):
        tokens_of(text)
    assert entries(cache) == []


def test_two_processes_that_open_at_once_build_once(text, tmp_path, cache):
    one, other = tmp_path / "one", tmp_path / "other"
    processes = [start(SLOW_BUILD, text, one, other), start(SLOW_BUILD, text, other, one)]
    said = [process.communicate(timeout=60)[0].split() for process in processes]
    assert sum(words[0] == "built" for words in said) == 1
    tokens = tokens_of(text)
    assert [words[-2:] for words in said] == [[str(len(tokens.train)), str(tokens.train.read().sum())]] * 2
    assert len(entries(cache)) == 1


def test_a_killed_builder_leaves_nothing_that_passes_for_an_entry(text, tmp_path, cache, builds):
    process = start(KILLED_BUILD, text, tmp_path / "one", tmp_path / "other")
    process.communicate(timeout=60)
    assert process.returncode == -9
    assert entries(cache) == []
    assert len(list((cache / "tokens").glob("*.building"))) == 1
    assert len(tokens_of(text).train) > 0
    assert len(builds) == len(entries(cache)) == 1
    assert list((cache / "tokens").glob("*.building")) == []


def test_threads_build_once_too(text, builds):
    threads = [threading.Thread(target=tokens_of, args=(text,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(builds) == 1
