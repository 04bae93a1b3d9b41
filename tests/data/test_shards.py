"""Shards of a source: the same tokens however it is cut, whoever builds them, and wherever they die."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.config.schema.data import SourceConfig
from harness.core.errors import UserError
from harness.data.codecs.codec import ByteCodec
from harness.data.documents import compressed, split_text
from harness.data.shards.encoding import Encoding
from harness.data.text.token_cache import is_tokenised, open_tokens
from harness.data.text_sources import leaf_hash as content_hash
from harness.data.text_sources import source_hash
from harness.data.text_sources.source import Source, find_source
from harness.data.text_sources.split import is_heldout
from harness.data.tokenizing import build_shards, claims, encode_piece, pieces
from harness.data.tokenizing.build_shards import BuildLimits
from harness.data.tokenizing.claims import BUILT_LOG, Job, build_pieces
from harness.data.tokenizing.draft import draft_folder
from harness.data.tokenizing.pieces import plan_pieces
from harness.data.tokens.tokens import Tokens

from .conftest import END, documents

LEAF = 2048
DOCUMENTS = [text.replace("\n", "\n\n").strip() for text in documents("shards", 200)]


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves and streams of a few kilobytes, in this process and in its forks."""
    for module in (split_text, content_hash, pieces):
        for name in ("LEAF", "LEAF_BYTES"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, LEAF)
    monkeypatch.setattr(source_hash, "LEAF_BYTES", LEAF)
    monkeypatch.setattr(source_hash, "SMALL_BYTES", LEAF)
    monkeypatch.setattr(pieces, "STREAM_BYTES", LEAF // 2)
    monkeypatch.setattr(claims, "SEGMENT_BYTES", LEAF)
    monkeypatch.setattr(claims, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(compressed, "COMPRESSIONS", compressed.COMPRESSIONS)


def _text(path: Path) -> None:
    path.write_text(f"\n{END}\n".join(DOCUMENTS))


def _lines(path: Path) -> None:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS))


def _gzip(write: Callable[[Path], None]) -> Callable[[Path], None]:
    def compress(path: Path) -> None:
        write(path)
        path.write_bytes(gzip.compress(path.read_bytes()))

    return compress


def _table(path: Path) -> None:
    pq.write_table(pa.table({"text": DOCUMENTS}), path, row_group_size=17)


WRITERS: dict[str, Callable[[Path], None]] = {
    "a.txt": _text,
    "a.jsonl": _lines,
    "a.txt.gz": _gzip(_text),
    "a.jsonl.gz": _gzip(_lines),
    "a.parquet": _table,
}


def write_source(folder: Path, name: str) -> Source:
    folder.mkdir(exist_ok=True)
    WRITERS[name](folder / name)
    return find_source("s", SourceConfig(str(folder / name)))


def encoding() -> Encoding:
    return Encoding("byte", ByteCodec(), 0.2)


def one_process() -> BuildLimits:
    return BuildLimits(processes=1, show=lambda _: None)


def check_tokens(tokens: Tokens) -> None:
    """Check against tokens made one document at a time."""
    sides: dict[bool, list[int]] = {True: [], False: []}
    starts = list[int]()
    for text in DOCUMENTS:
        side = is_heldout(text, 0.2)
        if not side:
            starts.append(len(sides[False]))
        sides[side] += [*text.encode(), 256]
    assert tokens.train.read().tolist() == sides[False]
    assert tokens.heldout.read().tolist() == sides[True]
    assert tokens.starts_D.tolist() == starts


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.usefixtures("small_pieces")
def test_a_source_in_pieces_has_the_tokens_of_its_documents(tmp_path, name):
    source = write_source(tmp_path / "data", name)
    plan = plan_pieces(source)
    assert len(plan.pieces) > 3 or plan.streams == (0,)
    assert not is_tokenised(source, encoding())
    tokens = open_tokens(source, encoding(), one_process())
    check_tokens(tokens)
    assert is_tokenised(source, encoding())
    assert len(tokens.train.parts) > 3


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.usefixtures("small_pieces")
def test_the_content_of_a_source_built_in_pieces_is_the_hash_of_its_file(tmp_path, name):
    source = write_source(tmp_path / "data", name)
    open_tokens(source, encoding(), one_process())
    (file,) = source.files
    leaves = [content_hash.leaf_hash(file, n) for n in range(content_hash.num_leaves(file.stat().st_size))]
    assert source_hash.file_hash(file) == content_hash.join_leaves(leaves)


@pytest.mark.usefixtures("small_pieces")
def test_small_files_share_a_piece_and_keep_their_order(tmp_path):
    (tmp_path / "data").mkdir()
    for number, text in enumerate(DOCUMENTS):
        (tmp_path / "data" / f"{number:04}.txt").write_text(text)
    source = find_source("s", SourceConfig(str(tmp_path / "data")))
    assert 3 < len(plan_pieces(source).pieces) < len(DOCUMENTS) / 3
    check_tokens(open_tokens(source, encoding(), one_process()))


def _build(job: Job, seed: int) -> None:
    """Build pieces as a process that is killed at a random portion does."""
    draw = random.Random(seed)

    def alive(characters: int) -> None:
        time.sleep(0.002)
        if draw.random() < 0.15:
            os.kill(os.getpid(), signal.SIGKILL)

    build_pieces(job, alive)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl.gz"])
@pytest.mark.usefixtures("small_pieces")
def test_killed_processes_leave_work_that_others_continue(tmp_path, monkeypatch, name):
    monkeypatch.setattr(encode_piece, "ENCODE_CHARACTERS", 200)
    source = write_source(tmp_path / "data", name)
    job = Job(source, encoding(), draft_folder(source, encoding()), processes=2)
    job.folder.mkdir()
    context, statuses = multiprocessing.get_context("fork"), list[int | None]()
    for seed in range(0, 20, 2):
        processes = [context.Process(target=_build, args=(job, seed + k)) for k in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            statuses.append(process.exitcode)
    assert statuses.count(-signal.SIGKILL) >= 3
    check_tokens(open_tokens(source, encoding(), one_process()))
    (entry,) = (path for path in job.folder.parent.iterdir() if len(path.name) == 64)
    built = (entry / BUILT_LOG).read_text().split()
    assert len(built) == len(set(built)) == len([*entry.glob("*.train.bin")])


@pytest.mark.usefixtures("small_pieces")
def test_two_processes_share_the_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(encode_piece, "ENCODE_CHARACTERS", 200)
    source = write_source(tmp_path / "data", "a.txt")
    job = Job(source, encoding(), draft_folder(source, encoding()))
    job.folder.mkdir()
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=build_pieces, args=(job, lambda _: time.sleep(0.002))) for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    built = (job.folder / BUILT_LOG).read_text().split()
    assert sorted(built) == [piece.name for piece in job.plan.pieces]
    check_tokens(open_tokens(source, encoding(), one_process()))


@pytest.mark.usefixtures("small_pieces")
def test_only_a_damaged_shard_is_built_again(tmp_path, cache, capsys):
    source = write_source(tmp_path / "data", "a.txt")
    tokens = open_tokens(source, encoding(), one_process())
    entry = cache / "tokens" / tokens.key
    shards = sorted(entry.glob("*.train.bin"))
    os.truncate(shards[2], 1030)
    (entry / BUILT_LOG).unlink()
    check_tokens(open_tokens(source, encoding(), one_process()))
    assert (entry / BUILT_LOG).read_text().split() == [shards[2].name.split(".")[0]]
    assert "is damaged" in capsys.readouterr().err


@pytest.mark.usefixtures("small_pieces")
def test_a_long_text_is_encoded_in_parts_that_end_with_a_line(monkeypatch):
    monkeypatch.setattr(encode_piece, "ENCODE_CHARACTERS", 50)
    portions = list[str]()

    class Recorded(ByteCodec):
        def encode(self, documents: list[str]) -> list[np.ndarray]:
            portions.extend(documents)
            return super().encode(documents)

    text = "".join(f"line {n} " + "x" * (n % 40) + "\n" for n in range(30)) + "y" * 300
    tokens = encode_piece.encode_long(Recorded(), text)
    assert bytes(tokens.astype(np.uint8)).decode() == text
    assert max(map(len, portions)) <= 100
    assert all(part.endswith("\n") for part in portions if "line" in part and "y" not in part)


@pytest.mark.usefixtures("small_pieces")
def test_a_bad_line_of_a_compressed_file_is_named_by_its_number(tmp_path):
    (tmp_path / "data").mkdir()
    lines = [json.dumps({"text": text}) for text in DOCUMENTS]
    lines[150] = "no object"
    (tmp_path / "data" / "a.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    source = find_source("s", SourceConfig(str(tmp_path / "data" / "a.jsonl.gz")))
    with pytest.raises(UserError, match=r"line 151 of a.jsonl.gz is not a JSON object"):
        open_tokens(source, encoding(), one_process())


def test_helper_processes_give_the_same_tokens(tmp_path):
    (tmp_path / "data").mkdir()
    texts = [text * 2000 for text in DOCUMENTS[:120]]
    for number in range(3):
        (tmp_path / "data" / f"{number}.txt").write_text(f"\n{END}\n".join(texts[number::3]))
    source = find_source("s", SourceConfig(str(tmp_path / "data")))
    assert len(plan_pieces(source).pieces) == 2
    shown = list[build_shards.BuildProgress]()
    limits = BuildLimits(processes=2, memory=2 * build_shards.PROCESS_BYTES, show=shown.append)
    tokens = open_tokens(source, encoding(), limits)
    ordered = [text for number in range(3) for text in texts[number::3]]
    content = b"".join(text.encode() + b"|" for text in ordered if not is_heldout(text, 0.2))
    found = np.where((train := tokens.train.read()) == 256, ord("|"), train).astype(np.uint8).tobytes()
    assert found == content
    assert shown[-1].done_bytes <= shown[-1].total_bytes
