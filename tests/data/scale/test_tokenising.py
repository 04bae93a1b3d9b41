"""First start on text: one pass, as fast as the tokenizers library, in bounded memory, in spite of kills."""

from __future__ import annotations

import os
import random
import shutil
import statistics
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tokenizers import ByteLevelBPETokenizer

from tests.data.scale.conftest import GB, SIZE
from tests.data.scale.made_files import forget, shipped_documents, write_text
from tests.data.scale.process_tree import kill_group, result_of, start, watch

pytestmark = pytest.mark.slow
CORES = len(os.sched_getaffinity(0))
PORTION = CORES * 2**27
"""Bytes by which speeds are compared: the start of the processes takes a second of them."""
ROUNDS, KILLS = 3, 10
VOCABULARY = 32_768


@dataclass(frozen=True)
class Corpus:
    """A text and a tokenizer, in a folder of their own."""

    text: Path
    tokenizer: Path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    """Make a text of the size, and a tokenizer of a vocabulary as people have it."""
    folder = Path(os.environ.get("AB_TEST_FOLDER", tmp_path_factory.getbasetemp())) / "corpus"
    folder.mkdir(parents=True)
    if shutil.disk_usage(folder).free < 3 * SIZE:
        pytest.skip(f"{folder} has less than {3 * SIZE / GB:.0f} GB; set AB_TEST_FOLDER")
    trainer = ByteLevelBPETokenizer()
    trainer.train_from_iterator(shipped_documents(), VOCABULARY, special_tokens=["<|endoftext|>"])
    trainer.save(str(folder / "tokenizer.json"))
    yield Corpus(write_text(folder / "text.txt", SIZE), folder / "tokenizer.json")
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def first_start(corpus: Corpus) -> dict[str, Any]:
    """Open the text for the first time, with an empty cache and a cold page cache."""
    cache = corpus.text.parent / "cache"
    forget(corpus.text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AB_HARNESS_CACHE", str(cache))
        printed, usage = watch(start("open_source", [corpus.text, corpus.tokenizer, "hash=1"]))
        again, _ = watch(start("open_source", [corpus.text, corpus.tokenizer]))
    shutil.rmtree(cache)
    return printed | {"usage": usage, "again": again["seconds"]}


def test_the_first_start_reads_once_and_takes_little_memory(corpus, first_start):
    size, usage = corpus.text.stat().st_size, first_start["usage"]
    read = usage.read_bytes / size
    rate, peak, again = size / first_start["seconds"] / 1e6, usage.peak_bytes / 2**20, first_start["again"]
    print(f"\n{rate:.1f} MB/s, {peak:.0f} MiB, {read:.2f} of the text read, again in {again:.2f} s")
    assert peak <= 1024
    assert read <= 1.1
    assert again <= 1


def test_tokenising_keeps_up_with_the_library(corpus, folder):
    taken: dict[str, list[float]] = {"library": [], "harness": []}
    for round_ in range(ROUNDS):
        path = write_text(folder / f"{round_}.txt", PORTION)
        for name, module in (("library", "encode_text"), ("harness", "open_source")):
            taken[name].append(result_of(start(module, [path, corpus.tokenizer]))["seconds"])
        path.unlink()
    rates = {name: PORTION / statistics.median(times) / 1e6 for name, times in taken.items()}
    ratios = [theirs / ours for theirs, ours in zip(taken["library"], taken["harness"], strict=True)]
    print("\nMB/s:", rates, "ratios:", ratios)
    assert statistics.median(ratios) >= 0.9


def test_what_is_killed_ten_times_gives_the_same_tokens_and_no_shard_twice(corpus, first_start, folder):
    draw, kills = random.Random(0), 0
    arguments = [corpus.text, corpus.tokenizer, "hash=1"]
    while kills < KILLS:
        process = start("open_source", arguments)
        try:
            process.wait(draw.uniform(0.02, 0.15) * first_start["seconds"])
            break
        except subprocess.TimeoutExpired:
            kill_group(process)
            kills += 1
    printed, _ = watch(start("open_source", arguments))
    (log,) = (folder / "cache").rglob("built")
    built = log.read_text().split()
    print(f"\n{kills} kills, {len(built)} shards")
    assert kills == KILLS
    assert len(built) == len({*built})
    assert (printed["tokens"], printed["hash"]) == (first_start["tokens"], first_start["hash"])
