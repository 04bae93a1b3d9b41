"""`harness verify --data` finds one flipped bit, wherever it lies, and whatever its file's time says."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from harness import cli
from harness.config.compose import sweep_configs
from harness.inspection.verify_data import DataRecord, verify_data
from harness.worker.tokenize_sources import TokenizeTask, find_sources, open_sources
from tests.data.small_shards import entries, shard_hashes, write_text
from tests.schemas.valid import check_output


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("AB_HARNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def words(path: Path, *more: str) -> list[str]:
    return ["data=own", f"data.sources.own.path={path}", "data.tokenizer=byte", *more]


def build(path: Path, *more: str) -> None:
    open_sources(find_sources(sweep_configs(words(path, *more))), TokenizeTask(1, None), lambda _: None)


@pytest.fixture
def text(tmp_path) -> Path:
    path = write_text(tmp_path / "text.txt", 20_000)
    build(path)
    return path


def flip(file: Path, place: int) -> None:
    """Flip a bit, and leave size and time as they are."""
    state, content = file.stat(), bytearray(file.read_bytes())
    content[place] ^= 1
    with file.open("r+b") as opened:  # the inode stays, too
        opened.write(content)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))


def verify(capsys, path: Path, *more: str) -> tuple[int, str]:
    code = cli.main(["verify", "--data", *words(path, *more)])
    return code, capsys.readouterr().out


def test_data_that_are_as_they_were(text, capsys):
    code, out = verify(capsys, text)
    assert code == 0
    assert out.startswith(f"own ({text}): 1 file and 1 shard, ")
    assert out.endswith(" KiB, are as recorded.\n")
    assert cli.main(["verify", "--data", *words(text), "--json"]) == 0
    content = check_output(capsys.readouterr().out, "verify_data")
    assert (content["same"], content["sources"][0]["shards"]) == (True, 1)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("0000000-000000.train.bin", 1024),
        ("0000000-000000.train.bin", -1),
        ("0000000-000000.heldout.bin", 8),
        ("train.starts", 8),
        ("train.starts", -8),
    ],
)
def test_a_flipped_bit_of_the_cache_is_found_and_built_again(text, cache, name, place):
    [entry], before = entries(cache), shard_hashes(cache)
    [config] = sweep_configs(words(text))
    flip(entry / name, place)
    [check] = verify_data([DataRecord(config)], lambda _: None)
    damaged = "0000000-000000" if name.endswith("bin") else name
    assert check.problems == [
        f"{entry}: {damaged} damaged and removed: the next start, or `harness tokenize`, builds that again"
    ]
    build(text)
    assert shard_hashes(cache) == before
    [check] = verify_data([DataRecord(config)], lambda _: None)
    assert (check.problems, check.notes, check.shards) == ([], [], 1)


def test_a_flipped_bit_of_a_source_is_found(text, capsys):
    flip(text, 1000)
    code, out = verify(capsys, text)
    assert code == 1
    assert f"own.path={text}: text.txt is not what was read, though its size and time are the same" in out


def test_a_file_that_a_run_has_read_otherwise_is_found(text):
    [config] = sweep_configs(words(text))
    [check] = verify_data([DataRecord(config, "runs/a/xs/mha/seed0", {"own": {"text.txt": "0" * 16}})], print)
    assert check.problems == [
        f"data.sources.own.path={text}: text.txt is not what runs/a/xs/mha/seed0 has read: restore it"
    ]


def test_what_nobody_has_read_is_said(tmp_path, capsys):
    path = write_text(tmp_path / "new.txt", 20_000)
    code, out = verify(capsys, path)
    assert code == 0
    assert out.splitlines()[-1] == f"own ({path}): {path} is not tokenised yet, so there are no shards."


def test_files_of_tokens_are_compared_with_what_their_index_recorded(tmp_path, capsys):
    draw, path = np.random.default_rng(0), tmp_path / "tokens.npy"
    letters = draw.integers(ord("a"), ord("z"), 20_000).astype(np.uint16)
    letters[99::100] = 256  # ends of documents
    np.save(path, letters)
    build(path)
    code, out = verify(capsys, path)
    assert (code, out) == (0, f"own ({path}): 1 file, 39.2 KiB, is as recorded.\n")
    flip(path, 5_004)
    code, out = verify(capsys, path)
    assert code == 1
    assert "tokens.npy is not what was read" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--data"], "harness verify --data: name a sweep, a run, or overrides"),
        (["--data", "runs/none"], "runs/none is not a run"),
        (["--data", "data=digits"], "data.kind=images: only text is tokenised"),
        ([], "required: RUN[@STEP]"),
    ],
)
def test_mistakes_are_one_sentence(capsys, arguments, sentence):
    assert cli.main(["verify", *arguments]) == 2
    assert sentence in capsys.readouterr().err
