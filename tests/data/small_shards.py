"""Texts, and processes in which a shard is a megabyte, so that a small text has many."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEAF = 2**20
SITE = f"""
import sys
import harness.data.open_data
for name, module in [*sys.modules.items()]:
    for constant in ("LEAF", "LEAF_BYTES", "SMALL_BYTES", "SEGMENT_BYTES", "STREAM_BYTES"):
        if name.startswith(("harness.data.shards", "harness.data.tokenizing", "harness.data.text",
                            "harness.data.documents.split")) and hasattr(module, constant):
            setattr(module, constant, {LEAF})
"""
"""Code that each Python with this folder on its path runs first."""


def small_shards(folder: Path) -> dict[str, str]:
    """Return the variables of an environment in which shards are small; `folder` must stay."""
    site = folder / "site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(SITE)
    return {"PYTHONPATH": f"{site}:{ROOT}"}


def write_text(path: Path, num_bytes: int) -> Path:
    """Write documents of random words, of 2 kB each."""
    draw, words = random.Random(7), ["the", "shards", "of", "tokens", "naïve", "漢字", "once", "3", ".\n"]
    with path.open("w") as file:
        while file.tell() < num_bytes:
            number = draw.random()
            file.write(f"{number} {' '.join(draw.choices(words, k=400))}\n<|endoftext|>\n")
    return path


def entries(cache: Path) -> list[Path]:
    """Return the folders of the sources that are tokenised in a cache."""
    return [path for path in (cache / "tokens").iterdir() if path.is_dir()]


def shard_hashes(cache: Path) -> Mapping[str, str]:
    """Return a hash of each file of tokens of the one source in a cache, by its name."""
    [entry] = entries(cache)
    files = sorted([*entry.glob("*.bin"), entry / "train.starts"])
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def built_shards(cache: Path) -> list[str]:
    """Return the names of the shards of the one source, in the order in which they were built."""
    [entry] = entries(cache)
    return (entry / "built").read_text().split()


def start(folder: Path, text: Path, env: Mapping[str, str], *options: str) -> subprocess.Popen:
    """Start `harness tokenize` with a cache of its own in `folder`, where shards are small."""
    env = {**env} | small_shards(folder) | {"AB_HARNESS_CACHE": str(folder / "cache")}
    return subprocess.Popen(
        [sys.executable, "-m", "harness.cli", "tokenize", str(text), *options],
        env=os.environ | env,
        cwd=ROOT,
        stdout=(folder / "said.txt").open("ab"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def said(folder: Path) -> str:
    return (folder / "said.txt").read_text()


def wait_for(condition: Callable[[], object], folder: Path, seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, said(folder)
        time.sleep(0.02)
