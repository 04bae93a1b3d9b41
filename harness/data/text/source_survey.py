"""What a source holds, found once per file version and remembered in the cache."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.atomic_files import read_json, sha256, write_json
from harness.core.cache_dir import cache_dir
from harness.core.hashing import digest
from harness.data.text.sources import Source, held_out, kind_of

FORMAT = 1
"""Raise it when the same files come to mean other documents or tokens."""


@dataclass(frozen=True)
class Split:
    documents: int
    bytes: int


@dataclass(frozen=True)
class Survey:
    """How much text of a source is trained on, and how much is held out."""

    train: Split
    heldout: Split


def content_hash(source: Source) -> str:
    """Changes with whatever changes the documents of a source or their order."""
    return digest([FORMAT, source.column, [[kind_of(file), _file_hash(file)] for file in source.files]])


def survey(source: Source, holdout: float) -> Survey:
    """Reads every document the first time. Raises UserError where one cannot be read."""
    key = [content_hash(source), holdout]
    found = _remember("survey", digest(key), key, lambda: dataclasses.asdict(_count(source, holdout)))
    return Survey(Split(**found["train"]), Split(**found["heldout"]))


def _count(source: Source, holdout: float) -> Survey:
    counts = {True: [0, 0], False: [0, 0]}
    for text in source.documents():
        count = counts[held_out(text, holdout)]
        count[0] += 1
        count[1] += len(text.encode())
    return Survey(train=Split(*counts[False]), heldout=Split(*counts[True]))


def _file_hash(file: Path) -> str:
    path, state = file.resolve(), file.stat()
    name = hashlib.sha256(str(path).encode()).hexdigest()
    version = [FORMAT, str(path), state.st_size, state.st_mtime_ns]
    return _remember("files", name, version, lambda: sha256(path))


def _remember(kind: str, name: str, version: list[Any], compute: Callable[[], Any]) -> Any:
    """The value under a name, computed again when it was remembered for another version."""
    memo = cache_dir("tokens") / kind / f"{name}.json"
    record = read_json(memo)
    if not isinstance(record, dict) or record.get("version") != version:
        record = {"version": version, "value": compute()}
        write_json(memo, record)
    return record["value"]
