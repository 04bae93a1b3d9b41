"""Opening of large data: at once, by many processes, and estimates of what is not yet tokenised."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.data.scale.conftest import GB
from tests.data.scale.made_files import ROOT, shipped_documents, write_llm_c
from tests.data.scale.process_tree import start, watch

pytestmark = pytest.mark.slow
WORKERS, SHARDS, SHARD_TOKENS = 9, 100, 10**8
HUGE = 100 * GB
DRY_RUN = ["sweep", "experiment=attention", "scale=s", "seed=0", "data=own", "--dry-run"]


def test_nine_workers_open_twenty_gigabytes_of_tokens_at_once(folder):
    for shard in range(SHARDS):
        write_llm_c(folder / "tokens" / f"{shard:03}.bin", SHARD_TOKENS)
    arguments = [folder / "tokens", "none", "format=llm_c", "vocabulary=50257"]
    first, usage = watch(start("open_source", arguments))
    assert first["tokens"] > 0.9 * SHARDS * SHARD_TOKENS
    opened = [watch(process)[0] for process in [start("open_source", arguments) for _ in range(WORKERS)]]
    seconds = [worker["seconds"] for worker in opened]
    print(f"\nfirst {first['seconds']:.1f} s, {usage.peak_bytes / 2**20:.0f} MiB; then", seconds)
    assert max(seconds) <= 1
    assert {worker["tokens"] for worker in opened} == {first["tokens"]}


@dataclass(frozen=True)
class DryRun:
    """A dry run of a text: its seconds, those of processors, and the line of the text."""

    seconds: float
    cpu_seconds: float
    line: str


def dry_run(path: Path) -> DryRun:
    command = [sys.executable, "-m", "harness.cli", *DRY_RUN, f"data.sources.own.path={path}"]
    environment, before = os.environ | {"PYTHONPATH": str(ROOT)}, os.times()
    done = subprocess.run(command, cwd=path.parent, env=environment, capture_output=True, text=True)
    after = os.times()
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("  data own:"))
    cpu_seconds = after.children_user + after.children_system
    cpu_seconds -= before.children_user + before.children_system
    return DryRun(after.elapsed - before.elapsed, cpu_seconds, line)


def test_a_dry_run_of_a_hundred_gigabytes_of_text_answers_at_once(folder):
    """Processor seconds count: others may use the machine, and a read of the text would take a minute."""
    path = folder / "text.txt"
    path.write_text("\n<|endoftext|>\n".join(shipped_documents()[:500]))
    small = dry_run(path)
    shutil.rmtree(folder / "cache")
    with path.open("r+b") as file:
        file.truncate(HUGE)
    huge = dry_run(path)
    print(f"\n{huge}, of a small file {small}")
    assert min(huge.seconds, huge.cpu_seconds) <= 5
    assert huge.cpu_seconds <= small.cpu_seconds + 1
    assert "about" in huge.line
