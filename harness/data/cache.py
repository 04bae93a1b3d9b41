"""The tokens of a source as memory-mapped arrays, built once and shared by every process.

An entry is a folder named by its content: `train.bin`, `heldout.bin`, and `header.json`, whose own
checksum, sizes and CRC-32 of both files say whether it is whole. It is built beside its
place under a file lock and renamed: a builder that is killed leaves nothing that passes for an
entry, and the kernel frees its lock.
"""

from __future__ import annotations

import fcntl
import shutil
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.config.cache import cache_dir
from harness.config.errors import UserError
from harness.config.identity import digest
from harness.data.content import content_hash
from harness.data.sources import Source, held_out
from harness.data.tokenizers import Codec
from harness.records.atomic import read_json, write_json

SPLITS = ("train", "heldout")
ENCODE_CHARACTERS = 1_000_000
"""Text encoded at a time: enough for the tokenizer's threads, little memory."""


@dataclass(frozen=True)
class Tokens:
    """Read-only, memory-mapped; each document is followed by the end-of-text token."""

    key: str
    train: np.ndarray
    heldout: np.ndarray


def open_tokens(source: Source, codec: Codec, holdout: float) -> Tokens:
    """The cached tokens of a source, built first if need be. Raises UserError on unreadable text."""
    key = _key(source, codec, holdout)
    folder = cache_dir("tokens") / key
    if not _whole(folder):
        with _lock(folder.with_suffix(".lock")):
            if not _whole(folder):
                _build(folder, source, codec, holdout)
    return Tokens(key, *(_map(folder / f"{split}.bin", codec.dtype) for split in SPLITS))


def _key(source: Source, codec: Codec, holdout: float) -> str:
    return digest([content_hash(source), codec.fingerprint, holdout])


def _build(folder: Path, source: Source, codec: Codec, holdout: float) -> None:
    """Holds the lock, so the one temporary folder there can be is a dead builder's."""
    draft = folder.with_suffix(".building")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    with ExitStack() as stack:
        files = [stack.enter_context((draft / f"{split}.bin").open("wb")) for split in SPLITS]
        for documents in _portions(source):
            for text, tokens in zip(documents, codec.encode(documents), strict=True):
                files[held_out(text, holdout)].write(np.append(tokens, codec.dtype.type(codec.end)).data)
    body = {f"{split}.bin": _state(draft / f"{split}.bin") for split in SPLITS}
    write_json(draft / "header.json", {"files": body, "checksum": digest(body)})
    if _key(source, codec, holdout) != folder.name:
        raise UserError(
            f"{source.key}.path={source.path} changed while it was read: start again when it is written"
        )
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)


def _portions(source: Source) -> Iterator[list[str]]:
    portion: list[str] = []
    characters = 0
    for text in source.documents():
        portion.append(text)
        characters += len(text)
        if characters >= ENCODE_CHARACTERS:
            yield portion
            portion, characters = [], 0
    yield portion


def _whole(folder: Path) -> bool:
    """Whether every byte of an entry is what its builder wrote."""
    try:
        header = read_json(folder / "header.json") or {}
        return header["checksum"] == digest(header["files"]) and all(
            _state(folder / name) == state for name, state in header["files"].items()
        )
    except (TypeError, KeyError, OSError):
        return False


def _state(file: Path) -> dict[str, Any]:
    return {"size": file.stat().st_size, "crc32": zlib.crc32(_map(file, np.dtype(np.uint8)).data)}


def _map(file: Path, dtype: np.dtype) -> np.ndarray:
    """An empty file cannot be mapped."""
    return np.memmap(file, dtype, mode="r") if file.stat().st_size else np.empty(0, dtype)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # a child forked meanwhile holds the file open
