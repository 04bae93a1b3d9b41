"""Fetching of one file: resumed where it ended, checked by size and checksum, renamed when it is whole."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core.errors import UserError
from harness.core.progress.waiting import hold_lock
from harness.data.remote.store_copy import StoreCopy
from harness.data.remote.store_errors import is_network_error
from harness.data.remote.store_listing import StoreFile, file_version

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

CHUNK_BYTES = 2**24
"""Bytes of a request."""
MAX_TRIES = 5
"""Tries without any progress, after which a file is given up."""
WAIT_SECONDS = 1.0
"""Seconds before the second try; each wait is twice as long as the one before."""
WAY_OUT = "choose another cache with AB_HARNESS_CACHE=FOLDER"

Alive = Callable[[int], None]
"""Receiver of the bytes that arrived since the last call; it raises to give up."""


class _NoRanges(Exception):
    """A server sends files only from their begin on."""


class _NoCopy(Exception):
    """The bytes that arrived are not the file."""


def fetch_file(store: AbstractFileSystem, file: StoreFile, copy: StoreCopy, where: str, alive: Alive) -> None:
    """Fetch a file unless there is a copy of this version. Raises UserError, which begins with `where`, for a
    file that changes or arrives damaged, and whatever the store raises."""
    with hold_lock(copy.lock(file), f"fetches {file.name}", WAY_OUT):
        if copy.is_current(file):
            return
        part = copy.part(file)
        if not file.version:  # nobody could tell whether its bytes are of the same version
            part.unlink(missing_ok=True)
        for is_last in (False, True):
            try:
                _fetch_part(store, file, part, alive)
                _check(store, file, part, where)
            except _NoCopy as error:
                part.unlink(missing_ok=True)
                if is_last:
                    raise UserError(
                        f"{where}: {file.name} {error}. Fetch it anew, or copy it here."
                    ) from None
            else:
                copy.keep(file, part)
                return


def _fetch_part(store: AbstractFileSystem, file: StoreFile, part: Path, alive: Alive) -> None:
    """Fetch the rest of a file, with several tries where the network fails."""
    num_tries = 0
    while True:
        before = _size(part)
        try:
            if file.size is None:
                _stream(store, file, part, alive)
            else:
                _fetch_ranges(store, file, file.size, part, alive)
            return
        except _NoRanges:
            _stream(store, file, part, alive)
            return
        except Exception as error:
            num_tries = 1 if _size(part) > before else num_tries + 1
            if num_tries >= MAX_TRIES or not is_network_error(error):
                raise
            time.sleep(WAIT_SECONDS * 2 ** (num_tries - 1))


def _fetch_ranges(store: AbstractFileSystem, file: StoreFile, size: int, part: Path, alive: Alive) -> None:
    remote = store.open(file.place, "rb", block_size=CHUNK_BYTES, cache_type="none")
    with part.open("ab") as local, remote:
        while (place := local.tell()) < size:
            length = min(CHUNK_BYTES, size - place)
            try:
                remote.seek(place)
                block: Any = remote.read(length)
            except ValueError as error:
                raise _NoRanges from error
            if len(block) != length:
                raise _NoRanges
            local.write(block)
            local.flush()
            os.fsync(local.fileno())  # after a crash of the machine, what has arrived is not all zeros
            alive(length)


def _stream(store: AbstractFileSystem, file: StoreFile, part: Path, alive: Alive) -> None:
    """Fetch a whole file from its begin on."""
    with part.open("wb") as local, store.open(file.place, "rb", block_size=0) as remote:
        while True:
            block: Any = remote.read(CHUNK_BYTES)
            if not block:
                return
            local.write(block)
            alive(len(block))


def _check(store: AbstractFileSystem, file: StoreFile, part: Path, where: str) -> None:
    """Raise _NoCopy unless the part has the size and the checksum of the file, and UserError if the file has
    changed meanwhile."""
    if file.size is not None and _size(part) != file.size:
        raise _NoCopy(f"arrives with {_size(part)} bytes and not {file.size}")
    algorithm, _, digest = file.digest.partition(":")
    if digest and _hash(part, algorithm) != digest:
        raise _NoCopy(f"arrives damaged (its {algorithm} is not that of the store)")
    if file_version(store, file) != (file.size, file.version):
        part.unlink(missing_ok=True)
        raise UserError(f"{where}: {file.name} changes while it is fetched. Start again when it is complete.")


def _hash(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
