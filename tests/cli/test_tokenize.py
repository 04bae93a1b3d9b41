"""`harness tokenize`: what a sweep reads is in the cache before it begins, whatever ends the command."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from rich.console import Console

from harness import cli
from harness.cli.verbs.tokenize import array_tasks
from harness.cli.views.progress_line import LINE_SECONDS, ProgressLine
from harness.config.compose import sweep_configs
from harness.config.schema.data import DataConfig, SourceConfig
from harness.config.schema.engine import EngineConfig, SlurmConfig
from harness.data import open_data
from harness.data.shards.shard_file import ShardWriter
from harness.data.text_sources import source as sources
from harness.data.tokenizing import disk_room
from harness.launcher.engines.engine_api import WorkerSpec
from harness.launcher.engines.slurm.script import resource_options
from harness.worker.tokenize_sources import fetch_sources, find_sources
from tests.data.small_shards import (
    built_shards,
    entries,
    said,
    shard_hashes,
    start,
    wait_for,
    write_text,
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("AB_HARNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def text(tmp_path) -> Path:
    return write_text(tmp_path / "text it's, =.txt", 100_000)


def tokenize(capsys, *words: str) -> tuple[int, str, str]:
    code = cli.main(["tokenize", *words])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_path_is_tokenised_for_the_sweeps_that_name_it(text, cache, capsys):
    code, out, _ = tokenize(capsys, str(text), "--tokenizer", "byte", "--holdout", "0.1", "--json")
    assert code == 0
    [source] = json.loads(out)["sources"]
    [entry] = entries(cache)
    assert source["folder"] == str(entry)
    documents = text.read_text().split("\n<|endoftext|>\n")[:-1]
    assert source["documents"] == len(documents)
    tokens = sum(len(document.encode()) + 1 for document in documents)
    assert source["train_tokens"] + source["heldout_tokens"] == tokens
    before = shard_hashes(cache)
    open_data(DataConfig("own", {"mine": SourceConfig(str(text))}, "byte", 16, 0.1))
    assert shard_hashes(cache) == before, "it was found, under another name too"


def test_the_second_time_nothing_is_built(text, cache, capsys):
    assert tokenize(capsys, str(text), "--tokenizer", "byte")[0] == 0
    states = {path: path.stat().st_mtime_ns for path in entries(cache)[0].iterdir()}
    code, out, _ = tokenize(capsys, str(text), "--tokenizer", "byte")
    assert code == 0
    assert "/s, in" not in out
    assert {path: path.stat().st_mtime_ns for path in entries(cache)[0].iterdir()} == states


def test_overrides_name_all_texts_of_a_sweep_once(text, tmp_path, cache, capsys):
    held = tmp_path / "held.txt"
    held.write_text("\n".join(f"line {number} of a text that nobody trains on" for number in range(500)))
    words = ["experiment=attention", "data=own", f"data.sources.own.path={json.dumps(str(text))}"]
    words += [f"+evaluation.sets={{books:{{path:{held}}}}}", "data.tokenizer=byte", "--json"]
    code, out, err = tokenize(capsys, *words)
    assert code == 0, err
    names = {source["name"]: source for source in json.loads(out)["sources"]}
    assert {*names} == {"own", "books"}
    assert names["books"]["train_tokens"] == 0
    assert len(entries(cache)) == 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "name a path, or overrides such as experiment=attention"),
        (["pack:prosa"], "did you mean 'prose'?"),
        (["pack:prose", "--memory", "much"], "--memory=much: give a size such as 1GiB or 512MiB"),
        (["pack:prose", "--tasks", "3"], "--tasks=3: name the engine of the tasks, with engine=slurm"),
        (["pack:prose", "--no-wait"], "--no-wait: name the engine of the tasks"),
        (["pack:prose", "--processes", "0"], "--processes=0: give 1 or more"),
        (["pack:prose", "engine=slurn"], "slurm"),
        (["pack:prose", "--tokenizer", "gpt2"], "data.tokenizer=gpt2"),
        (["experiment=attention", "--column", "text"], "--column=text is for paths"),
        (["data=digits"], "data.kind=images: only text is tokenised"),
    ],
)
def test_mistakes_are_one_sentence(capsys, words, sentence):
    code, out, err = tokenize(capsys, *words)
    assert (code, out) == (2, "")
    assert sentence in err
    assert len(err.splitlines()) == 1


def test_no_wait_needs_a_ray_that_outlives_the_command(tmp_path, capsys):
    text = write_text(tmp_path / "large.txt", 34 << 20)
    code, _, err = tokenize(capsys, str(text), "--tokenizer", "byte", "engine=ray", "--no-wait")
    assert code == 2
    assert "starts a Ray that ends with the command" in err


def test_a_disk_without_room_is_said_before_anything_is_built(text, cache, capsys, monkeypatch):
    usage = disk_room.shutil.disk_usage(text.parent)
    monkeypatch.setattr(disk_room.shutil, "disk_usage", lambda _: usage._replace(free=150_000))
    code, _, err = tokenize(capsys, str(text), "--tokenizer", "byte")
    assert code == 2
    assert f"{cache}: the tokens of data.sources.own.path={text} need some " in err
    assert "this disk has 146.5 KiB free" in err
    assert not [*cache.glob("tokens/*/*.bin")]


def test_a_disk_that_becomes_full_is_one_sentence_and_the_same_command_continues(
    text, cache, capsys, monkeypatch
):
    add, count = ShardWriter.add, 0

    def add_some(*arguments) -> None:
        nonlocal count
        count += 1
        if count == 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        add(*arguments)

    monkeypatch.setattr(ShardWriter, "add", add_some)
    code, _, err = tokenize(capsys, str(text), "--tokenizer", "byte")
    assert code == 2
    assert err.count("\n") == 1
    assert "this disk has" in err
    code, out, _ = tokenize(capsys, str(text), "--tokenizer", "byte", "--json")
    assert code == 0
    assert json.loads(out)["sources"][0]["documents"] == text.read_text().count("<|endoftext|>")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_progress_is_a_line_now_and_then_in_a_file_and_one_line_on_a_terminal():
    for is_terminal, expected in ((False, ["second", "stays"]), (True, ["stays"])):
        output, clock = io.StringIO(), Clock()
        console = Console(file=output, width=60, force_terminal=is_terminal, color_system=None)
        with ProgressLine(console, clock) as line:
            line.show("first")
            clock.now = LINE_SECONDS
            line.show("second")
            line.show("third")
            line.note("stays")
        shown = output.getvalue()
        assert ("first" in shown) is is_terminal
        assert "second" in shown
        assert "third" not in shown
        if not is_terminal:
            assert shown.splitlines() == expected


def helpers(cache: Path) -> list[int]:
    """Return the processes that work for a cache, besides the command itself."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"harness.data.tokenizing.helper_process" in words and any(
            str(cache).encode() in w for w in words
        ):
            found.append(int(folder.name))
    return found


@pytest.mark.slow
def test_ctrl_c_leaves_no_process_and_the_same_command_continues(tmp_path, cache):
    text = write_text(tmp_path / "text.txt", 8 << 20)
    command = start(tmp_path, text, {}, "--processes", "2")
    wait_for(lambda: [*cache.glob("tokens/*.building/built")], tmp_path)
    os.killpg(command.pid, signal.SIGINT)  # as a terminal does
    assert command.wait(60) == 130
    assert said(tmp_path).splitlines() == ["Stopped. The same command continues."]
    assert helpers(cache) == []
    [draft] = cache.glob("tokens/*.building/built")
    before = draft.read_text().split()
    assert start(tmp_path, text, {}, "--processes", "2").wait(200) == 0, said(tmp_path)
    assert built_shards(cache)[: len(before)] == before
    assert len(built_shards(cache)) == len({*built_shards(cache)}) == 9


def num_built(cache: Path) -> int:
    return sum(len(log.read_text().split()) for log in cache.glob("tokens/*.building/built"))


@pytest.mark.slow
def test_killed_ten_times_it_gives_the_same_tokens_and_builds_no_shard_twice(tmp_path, cache):
    text, draw = write_text(tmp_path / "text.txt", 45 << 20), random.Random(11)
    calm = tmp_path / "calm"
    calm.mkdir()
    assert start(calm, text, {}, "--processes", "2").wait(300) == 0, said(calm)
    for _ in range(10):
        target = num_built(cache) + draw.randint(0, 2)
        command = start(tmp_path, text, {}, "--processes", "2")
        wait_for(lambda target=target: cache.exists() and num_built(cache) >= target, tmp_path)
        time.sleep(draw.uniform(0.0, 0.15))
        command.kill()  # its helpers find out by themselves
        command.wait()
    assert [*cache.glob("tokens/*.building")], "the kills came too late to matter"
    assert start(tmp_path, text, {}, "--processes", "2").wait(300) == 0, said(tmp_path)
    assert shard_hashes(cache) == shard_hashes(calm / "cache")
    assert sorted(built_shards(cache)) == sorted(built_shards(calm / "cache"))
    assert len(built_shards(cache)) == len({*built_shards(cache)}) >= 45
    wait_for(lambda: not helpers(cache), tmp_path)


def fill(file: Path) -> None:
    """Write until the disk is full."""
    with file.open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(2**20))
            os.fsync(filler.fileno())


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_disk_that_fills_while_helpers_write_loses_nothing(tmp_path, cache):
    text = write_text(tmp_path / "text.txt", 6 << 20)
    cache.mkdir()
    options = ["-t", "tmpfs", "-o", "size=24m,mode=700"]
    mount = subprocess.run(["mount", *options, "none", str(cache)], check=False)
    if mount.returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        command = start(tmp_path, text, {}, "--processes", "2")
        wait_for(lambda: [*cache.glob("tokens/*.building/built")], tmp_path)
        with pytest.raises(OSError, match="No space left"):
            fill(cache / "filler")
        assert command.wait(60) == 2
        [sentence] = said(tmp_path).splitlines()
        assert sentence.startswith(f"{cache}: the tokens of data.sources.own.path={text} need some ")
        assert start(tmp_path, text, {}, "--processes", "2").wait(60) == 2, "still full"
        (cache / "filler").unlink()
        assert start(tmp_path, text, {}, "--processes", "2").wait(200) == 0, said(tmp_path)
        assert len(built_shards(cache)) == len({*built_shards(cache)}) == 7
    finally:
        subprocess.run(["umount", "-l", str(cache)], check=True)


def test_a_task_asks_for_a_cpu_a_process_and_no_accelerator(tmp_path):
    settings = EngineConfig("slurm", SlurmConfig(cpus=8, gpus=1, partition="cpu"))
    spec = WorkerSpec("task0", (), {}, tmp_path / "log", devices=16)
    options = resource_options(array_tasks._cpu_settings(settings).slurm, spec)
    assert options == ["--nodes=1", "--ntasks=1", "--cpus-per-task=16"]


def test_files_behind_a_url_are_fetched_before_tasks_are_submitted(tmp_path, monkeypatch):
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setattr(sources, "FETCHED_BYTES", 0)
    fsspec.filesystem("memory").pipe("/store/text.txt", b"some text\n<|endoftext|>\n" * 1000)
    [config] = sweep_configs(["data=own", "data.sources.own.path=memory://store", "data.tokenizer=byte"])
    [entry] = find_sources([config])
    assert entry.source.source.remote is not None
    [fetched] = fetch_sources([entry], lambda _: None)
    assert fetched.source.source.remote is None
    assert fetched.source.source.files[0].read_bytes().count(b"some") == 1000
