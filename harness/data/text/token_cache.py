"""Cache of the tokens of a source, as memory-mapped arrays that all processes share.

An entry is a folder named by the hash of its content: `train.bin` and `heldout.bin`. Size and CRC-32 of both
are a checked entry of their own, and are compared at each opening (a second per gigabyte). It is built in a
temporary folder under a file lock, then renamed. A killed builder leaves no valid entry, and the kernel frees
its lock.
"""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.core.cache.cache_dir import cache_dir
from harness.core.cache.cache_entries import DAMAGED, CacheEntry, print_note
from harness.core.errors import UserError
from harness.core.hashing import hash_json
from harness.core.number_format import format_si
from harness.core.progress.report import report
from harness.core.progress.waiting import hold_lock
from harness.data.text.codec import Codec
from harness.data.text.source_sizes import content_hash
from harness.data.text.sources import Source
from harness.data.text.split import Split, divide

SPLITS = ("train", "heldout")
WAY_OUT = "choose another cache with AB_HARNESS_CACHE=FOLDER"
ENCODE_CHARACTERS = 1_000_000
"""Characters encoded at a time: enough for the tokenizer's threads, with little memory."""


CHECK_BYTES = 2**24
"""Bytes of an entry that are checked at a time."""


@dataclass(frozen=True)
class Tokens:
    """Tokens of both splits, read-only and memory-mapped. An end-of-text token follows each document."""

    key: str
    train: np.ndarray
    heldout: np.ndarray


def open_tokens(source: Source, codec: Codec, holdout: float, split: Split = Split.documents) -> Tokens:
    """Open the cached tokens of a source, building them first if needed. Raises UserError for bad text."""
    key = _key(source, codec, holdout, split)
    folder = cache_dir("tokens") / key
    purpose = f"tokenises {source.name}"
    with hold_lock(folder.with_suffix(".lock"), purpose, WAY_OUT):
        if not _is_intact(folder):
            _build(folder, source, codec, holdout, split)
    return Tokens(key, *(_open_array(folder / f"{side}.bin", codec.dtype) for side in SPLITS))


def _key(source: Source, codec: Codec, holdout: float, split: Split) -> str:
    way = [] if split is Split.documents else [split.value]
    return hash_json([content_hash(source), codec.fingerprint, holdout, *way])


def _build(folder: Path, source: Source, codec: Codec, holdout: float, split: Split) -> None:
    """Build an entry. The lock is held, so an existing temporary folder belongs to a dead builder."""
    draft = folder.with_suffix(".building")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    characters = 0
    with ExitStack() as stack:
        files = [stack.enter_context((draft / f"{split}.bin").open("wb")) for split in SPLITS]
        for batch in _text_batches(source, holdout, split):
            encoded = codec.encode([text for _, text in batch])
            characters += sum(len(text) for _, text in batch)
            report(f"tokenising {source.name}, {format_si(characters)}characters so far")
            for (held_out, _), tokens in zip(batch, encoded, strict=True):
                ended_tokens = np.append(tokens, codec.dtype.type(codec.end_token))
                files[held_out].write(ended_tokens.data)
    checksums = _checksums(draft)
    if _key(source, codec, holdout, split) != folder.name:
        raise UserError(
            f"{source.key}.path={source.path} changed while it was read. Start again when it is complete."
        )
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)
    _checksum_entry(folder).write_json(checksums)


def _text_batches(source: Source, holdout: float, split: Split) -> Iterator[list[tuple[bool, str]]]:
    """Yield (whether it is held out, text) of all documents, some at a time."""
    portion: list[tuple[bool, str]] = []
    characters = 0
    for document in source.documents():
        portion += divide(document, holdout, split)
        characters += len(document)
        if characters >= ENCODE_CHARACTERS:
            yield portion
            portion, characters = [], 0
    yield portion


def _checksum_entry(folder: Path) -> CacheEntry:
    return CacheEntry("surveys", "tokens", folder.name)


def _is_intact(folder: Path) -> bool:
    """Return whether every byte of an entry is what its builder wrote. Of a damaged one it is said."""
    checksums = _checksum_entry(folder).read_json()
    if checksums is None or not folder.is_dir():
        return False
    os.utime(folder)  # the age of an entry counts from its last use
    try:
        intact = checksums == _checksums(folder)
    except FileNotFoundError:
        intact = False
    if not intact:
        print_note(f"{folder} {DAMAGED}; its text is tokenised again.")
    return intact


def _checksums(folder: Path) -> dict[str, dict[str, int]]:
    """Return size and CRC-32 of both splits."""
    content = {f"{split}.bin": _open_array(folder / f"{split}.bin", np.dtype(np.uint8)) for split in SPLITS}
    return {name: {"size": len(array), "crc32": _crc32(array, name)} for name, array in content.items()}


def _crc32(array: np.ndarray, name: str) -> int:
    crc = 0
    for start in range(0, len(array), CHECK_BYTES):
        crc = zlib.crc32(array[start : start + CHECK_BYTES].data, crc)
        report(f"checking {name}", start + CHECK_BYTES, len(array))
    return crc


def _open_array(file: Path, dtype: np.dtype) -> np.ndarray:
    """Map a file as an array; an empty file cannot be mapped."""
    return np.memmap(file, dtype, mode="r") if file.stat().st_size else np.empty(0, dtype)
